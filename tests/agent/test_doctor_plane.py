# SPDX-License-Identifier: MIT
"""What ``doctor`` finds of the kernel data plane, by what the loader has left; tests/bpf has the same on interfaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from doctoring import look_at, wrong

from tests.support.agents import write_config
from tests.support.ports import free_port
from xdp_gossip.cli.doctor import dataplane
from xdp_gossip.dataplane import interfaces
from xdp_gossip.dataplane.loader.errors import LoaderError

UP: dict[str, Any] = {
    "up": True, "mode": "TC", "interface": "lo", "reasons": [], "compiler": "clang", "nodes": 1, "amount": 1,
    "user": "x", "counters": {}, "rejected": {}, "container": "",
}  # fmt: skip
REASON = {"mode": "XDP (native)", "reason": "a veth", "remedy": "ethtool"}


class Stock:
    """Compiled programs, or what is lacking for them."""

    checksum, toolchain = "", "a compiler"

    def __init__(self, lacks: Sequence[tuple[str, str]] = (), unfit: LoaderError | None = None) -> None:
        self.lacks, self.unfit = list(lacks), unfit

    def lacking(self) -> list[tuple[str, str]]:
        """What was given."""
        return self.lacks


class Refused(LoaderError):
    """What a loader says."""

    def __init__(self) -> None:
        self.reason, self.remedy = "it was refused", "allow it"
        Exception.__init__(self, self.reason)


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise error

    return fail


def site(tmp_path: Path, **more: Any) -> Any:
    return look_at(write_config(tmp_path / "a", free_port(), dataplane={"directory": str(tmp_path / "plane")}, **more))


def test_nothing_is_up_and_loopback_has_no_network(tmp_path: Path) -> None:
    found = wrong(dataplane.examine(site(tmp_path)))
    assert {"dataplane.impossible", "dataplane.down"} <= found.keys()
    assert {found["dataplane.impossible"].level, found["dataplane.down"].level} == {"warning"}
    found = wrong(dataplane.examine(site(tmp_path, protocol="TC")))
    assert {found["dataplane.impossible"].level, found["dataplane.down"].level} == {"error"}
    assert not list(dataplane.examine(site(tmp_path, protocol="UDP")))
    assert not list(dataplane.examine(site(tmp_path, amount="x")))


def test_a_state_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane.status, "report", raises(Refused()))
    assert list(wrong(dataplane.examine(site(tmp_path)))) == ["dataplane.unreadable"]


def test_one_that_nobody_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane.status, "report", lambda directory: UP)
    assert list(wrong(dataplane.examine(site(tmp_path, protocol="UDP")))) == ["dataplane.unwanted"]


def test_what_the_loader_has_told() -> None:
    told = {"reasons": [REASON], "notes": ["a note"], "waiting": "an address", "counters": {"drop_bad_mac": 2}}
    found = wrong(dataplane.loaded({**UP, **told}, "warning"))
    assert list(found) == ["dataplane.lesser", "dataplane.told", "dataplane.waiting", "dataplane.counted"]
    assert not wrong(dataplane.loaded(UP, "warning"))


def test_what_does_not_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane.os, "geteuid", lambda: 0)
    monkeypatch.setattr(dataplane.state, "read", lambda directory: {"x": 1})
    monkeypatch.setattr(dataplane.proof, "again", lambda directory, now: [Refused()])
    counters = {"copy_due": 9, "copy_lost": 2}
    source = {"addr": "198.18.0.9", "verdict": "drop_bad_mac", "samples": 3, "last": 1.0}
    monkeypatch.setattr(dataplane.refusals, "line", str)
    found = wrong(dataplane.carries(tmp_path, {**UP, "counters": counters, "refusals": [source]}))
    assert list(found) == ["dataplane.broken", "dataplane.vanishing", "dataplane.dropped"]
    monkeypatch.setattr(dataplane.proof, "again", raises(OSError("no")))
    assert "cannot be repeated" in wrong(dataplane.carries(tmp_path, UP))["dataplane.broken"].text


def test_what_the_host_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "status").write_text("CapEff:\t0000000000000000\n")
    (tmp_path / "lockdown").write_text("none integrity [confidentiality]")
    monkeypatch.setattr(dataplane, "_PROCESS", tmp_path / "status")
    monkeypatch.setattr(dataplane, "_LOCKDOWN", tmp_path / "lockdown")
    monkeypatch.setattr(dataplane.libbpf, "library", raises(OSError("libbpf is missing")))
    monkeypatch.setattr(dataplane.unprivileged, "maps_refused", lambda: True)
    monkeypatch.setattr(dataplane.os, "geteuid", lambda: 0)
    found = wrong(dataplane._host("error", Stock([("BCC is missing", "install it")])))
    assert set(found) == {"kernel.capability", "kernel.lockdown", "dataplane.library", "dataplane.privileges"}
    monkeypatch.setattr(dataplane.unprivileged, "maps_refused", raises(OSError(1, "not permitted")))
    assert wrong(dataplane.privilege())["kernel.capability"].text == "not permitted"


def test_what_the_kernel_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane.proof, "lost_modes", lambda name: ["TC"])
    rejected = {"xg_tc": {"reason": "xg_tc: rejected", "remedy": "another kernel"}}
    found = wrong(dataplane.kernel({**UP, "rejected": rejected}, None, "warning", None))
    assert "there is no TC" in found["kernel.rejects"].text
    monkeypatch.setattr(dataplane.proof, "trial", raises(Refused()))
    monkeypatch.setattr(dataplane.os, "geteuid", lambda: 0)
    wanted: Any = object()
    assert list(wrong(dataplane.kernel({**UP, "up": False}, wanted, "warning", Stock()))) == ["kernel.refuses"]


def test_where_the_programs_come_from() -> None:
    unfit = LoaderError("programs.xgp: checksum: the file was changed", "deploy the release again")
    found = wrong(dataplane._origin(UP, Stock(unfit=unfit)))
    assert found["dataplane.container"].remedy == "deploy the release again"
    assert [each.text for each in dataplane._origin(UP, None)] == [
        "the programs come from this host's compiler (clang)"
    ]
    told = [each.text for each in dataplane._origin({**UP, "container": "ab12"}, Stock())]
    assert told == ["the programs come from program container sha256:ab12 (clang)"]


class Wanted:
    """What a configuration asks for."""

    modes = ("XDP (native)", "TC")
    protocol, nodes, amount, user = "TC", 2, 1, "x"

    def __init__(self, **more: Any) -> None:
        loopback = interfaces.by_name("lo")
        assert loopback is not None
        self.interface = loopback
        vars(self).update(more)


def test_settings_that_differ_and_the_interface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted: Any = Wanted()
    found = wrong(dataplane._differences(UP, wanted))
    assert found["dataplane.differs"].text == "limits.nodes: up with 1, configured is 2"
    other: Any = Wanted(modes=("XDP (native)",))
    assert next(dataplane._differences(UP, other)).level == "error"
    monkeypatch.setattr(dataplane.attach, "incumbent", lambda interface: "a program of somebody")
    assert "XDP is not available" in next(iter(dataplane.prospects(wanted))).text
    assert {finding.id for finding in dataplane.prospects(wanted)} == {"dataplane.interface"}
    (tmp_path / "ipv4/neigh/default").mkdir(parents=True)
    (tmp_path / "ipv4/neigh/default/gc_thresh3").write_text("1\n")
    monkeypatch.setattr(dataplane, "_NEIGHBOURS", tmp_path)
    nodes = [{"addr": f"127.0.1.{number}", "local": False} for number in range(3)]
    assert list(wrong(dataplane.neighbours(wanted.interface, nodes))) == ["dataplane.neighbours"]
    assert list(wrong(dataplane._use(UP, {"mode": "UDP", "mode_reason": ""}))) == ["dataplane.unused"]
