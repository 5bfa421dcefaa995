# SPDX-License-Identifier: MIT
"""``doctor`` names each reason for which the data plane steps down or stays away, and what to do about it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bpf.loader_world import COMMAND, World, world
from tests.bpf.test_loader_modes import spoil
from xdp_gossip.cli.doctor import dataplane as doctor_dataplane
from xdp_gossip.cli.doctor.finding import Finding
from xdp_gossip.cli.main import main
from xdp_gossip.dataplane import interfaces, unprivileged
from xdp_gossip.dataplane.loader import attach, compile
from xdp_gossip.dataplane.loader.stock import Stock

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and BPF")


def doctor(here: World) -> dict[str, tuple[str, str]]:
    """What doctor says of kernel and data plane: text -> level and remedy."""
    done = here.inside(COMMAND, "doctor", "--json", "--config", str(here.files / "agent.yml"), check=False)
    found = [
        finding
        for finding in json.loads(done.stdout)["findings"]
        if finding["id"].startswith(("dataplane.", "kernel.")) and finding["id"] != "dataplane.unused"
    ]
    return {finding["text"]: (finding["level"], finding["remedy"]) for finding in found}


def configure(here: World, protocol: str = "auto", **more: object) -> None:
    here.configure(protocol, dataplane={"directory": str(here.directory)}, **more)


def only(found: dict[str, tuple[str, str]], words: str) -> tuple[str, str]:
    """Level and remedy of the one finding with these words."""
    matching = [text for text in found if words in text]
    assert len(matching) == 1, (words, found)
    return found[matching[0]]


@pytest.mark.root
@pytest.mark.usefixtures("light")
@needs_root
def test_nothing_to_complain_of(here: World) -> None:
    configure(here)
    here.loader("up")
    found = doctor(here)
    assert only(found, f"XDP (native) on {here.interface}") == ("ok", "")
    assert only(found, "XDP (native) comes before netfilter: no rule of this host's own applies") == ("ok", "")
    assert {level for level, _ in found.values()} == {"ok"}


@pytest.mark.root
@pytest.mark.usefixtures("light")
@needs_root
@pytest.mark.parametrize(("protocol", "level"), [("auto", "warning"), ("XDP", "error"), ("TC", "error")])
def test_not_up(here: World, protocol: str, level: str) -> None:
    configure(here, protocol)
    found_level, remedy = only(doctor(here), "nothing is up")
    assert found_level == level and "dataplane up" in remedy


@pytest.mark.root
@pytest.mark.usefixtures("light")
@needs_root
def test_an_incumbent_is_named_before_and_after(here: World, incumbent: Path) -> None:
    here.inside("ip", "link", "set", here.interface, "xdpdrv", "pinned", str(incumbent))
    configure(here)
    assert "incumbent" in next(text for text in doctor(here) if text.startswith("XDP is not available"))
    here.loader("up")
    found = doctor(here)
    assert only(found, "TC on")[0] == "ok"
    assert only(found, "not XDP (native)")[0] == "warning"
    assert "detach it" in only(found, "not XDP (generic)")[1]


@pytest.mark.root
@pytest.mark.usefixtures("light")
@needs_root
def test_gro_mtu_and_differences(tmp_path: Path) -> None:
    with world(tmp_path, gro=False) as here:
        here.plain_tags()
        configure(here)
        assert "gro on" in only(doctor(here), "is a veth")[1]
        here.loader("up")
        level, remedy = only(doctor(here), "neither GRO nor XDP")
        assert level == "warning" and "ethtool -K" in remedy
        configure(here, "TC", amount=9)
        found = doctor(here)
        assert only(found, "XDP (generic) is up, but protocol is TC")[0] == "error"
        assert only(found, "amount: up with 4, configured is 9")[0] == "warning"
        configure(here, "UDP")
        assert "dataplane down" in only(doctor(here), "the configuration wants none")[1]
        here.loader("down", "--directory", str(here.directory))
        here.inside("ip", "link", "set", here.interface, "mtu", "9000")
        configure(here)
        assert "mtu 1500" in only(doctor(here), "MTU")[1]


@pytest.mark.root
@pytest.mark.usefixtures("light")
@needs_root
def test_addresses_without_an_interface(here: World) -> None:
    here.inside("ip", "link", "set", "lo", "up")
    configure(here, addr="198.18.61.99")
    assert "dataplane.interface" in only(doctor(here), "no interface has this address")[1]
    configure(here, addr="127.0.0.1")
    assert "UDP" in only(doctor(here), "loopback")[1]


def complaints(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "ok"]


def put(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file"
    path.write_text(text)
    return path


@pytest.mark.root
@pytest.mark.usefixtures("light")
@needs_root
def test_a_kernel_is_judged_by_what_it_accepts(here: World, light: Path) -> None:
    """As root doctor tries, with nothing up; what the loader saw is told otherwise. Its version proves nothing."""
    before = here.traces()
    configure(here)
    level, remedy = only(doctor(here), "accepts 8 of 8 programs")
    assert (level, remedy) == ("ok", "")
    spoil(light, "xg_tc_ingress")
    found = doctor(here)
    level, remedy = only(found, "xg_tc_ingress: the kernel's verifier rejects it: ")
    assert level == "warning" and "doctor" not in remedy
    assert "there is no TC" in next(text for text in found if text.startswith("xg_tc_ingress"))
    here.expect_traces(before)
    here.loader("up")
    assert only(doctor(here), "accepts the programs of XDP (native)")[0] == "ok"
    configure(here, "TC")
    here.loader("up", check=False)
    found = doctor(here)
    assert any(text.startswith("xg_tc_ingress: the kernel's verifier rejects it") for text in found)
    assert {level for level, _ in found.values()} != {"ok"}


@pytest.mark.root
@pytest.mark.usefixtures("light")
@needs_root
def test_what_carries_no_longer_is_told_though_it_is_up(here: World) -> None:
    configure(here)
    here.loader("up")
    here.outside("ethtool", "-K", here.peer, "gro", "off")
    level, remedy = only(doctor(here), "XDP (native) does not carry: of 2 test frames")
    assert level == "error" and "gro on" in remedy


@pytest.mark.parametrize("refused", [False, True])
def test_kernels_that_give_maps_only_to_the_capable(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    """What counts is what the kernel answers, whatever its version."""
    monkeypatch.setattr(doctor_dataplane.unprivileged, "maps_refused", lambda: refused)
    monkeypatch.setattr(doctor_dataplane.platform, "release", lambda: "5.14.0-503.el9")
    found = list(doctor_dataplane.privilege())
    assert ["CAP_BPF" in finding.text and "drop-in" in finding.remedy for finding in found] == [True] * refused


@pytest.mark.parametrize("refused", [False, True])
def test_status_says_which_capability_the_agent_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: bool
) -> None:
    """For the role, which writes the agent's unit."""
    monkeypatch.setattr(unprivileged, "maps_refused", lambda: refused)
    monkeypatch.setattr(unprivileged.os, "geteuid", lambda: 0)
    words = ["dataplane", "status", "--directory", str(tmp_path)]
    assert main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["agent_needs"] == ["CAP_BPF"] * refused
    assert main(words) == 3
    assert ("the agent's unit needs it" in capsys.readouterr().out) == refused


def test_the_kernel_is_asked_without_a_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    """This one allows it (Linux 5.19); one that does not answers EPERM to the call, whatever it is asked for."""
    assert unprivileged.maps_refused() is False
    monkeypatch.setattr(unprivileged, "_ASK", "import errno; print(errno.EPERM)")
    assert unprivileged.maps_refused() is True
    monkeypatch.setattr(unprivileged, "_ASK", "raise OSError('no such library')")
    with pytest.raises(OSError, match="cannot be tried without a privilege: OSError: no such library"):
        unprivileged.maps_refused()


@pytest.mark.parametrize(
    ("protocol", "remedy"), [("auto", "systemctl reload xdp-gossip"), ("UDP", "systemctl restart xdp-gossip")]
)
def test_an_agent_that_does_not_use_what_is_up(protocol: str, remedy: str) -> None:
    """It looks by itself; only a protocol that it was started with needs a restart."""
    agent = {"mode": "UDP", "mode_reason": "", "protocol": protocol}
    (found,) = doctor_dataplane._use({"mode": "TC"}, agent)
    assert found.level == "error" and remedy in found.remedy


@pytest.mark.parametrize(
    ("text", "complains"), [("[none] integrity confidentiality", False), ("none integrity [confidentiality]", True)]
)
def test_lockdown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, complains: bool) -> None:
    monkeypatch.setattr(doctor_dataplane, "_LOCKDOWN", put(tmp_path, text))
    found = [finding for finding in doctor_dataplane._host("warning", Stock()) if "locked down" in finding.text]
    assert bool(found) == complains


@pytest.mark.parametrize(
    ("held", "lacking"), [("000001ffffffffff", ""), ("00000000a80425fb", "NET_ADMIN, CAP_SYS_ADMIN")]
)
def test_capabilities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: str, lacking: str) -> None:
    monkeypatch.setattr(doctor_dataplane, "_PROCESS", put(tmp_path, f"Name:\tx\nCapEff:\t{held}\n"))
    found = list(doctor_dataplane.capabilities("error"))
    assert [lacking in finding.text for finding in found] == ([True] if lacking else [])


def test_bcc_and_headers_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_bcc(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(compile.importlib, "import_module", no_bcc)
    monkeypatch.setattr(compile, "_USER_HEADERS", tmp_path)
    texts = {finding.text: finding.remedy for finding in complaints(doctor_dataplane._host("error", Stock()))}
    bcc = next(text for text in texts if "BCC is missing" in text)
    assert "python3-bpfcc" in texts[bcc] and "python3-bcc" in texts[bcc]
    libc = next(text for text in texts if "if_ether.h" in text)
    assert "linux-libc-dev" in texts[libc]


@pytest.mark.parametrize(("limit", "complains"), [(9, True), (10, False)])
def test_the_table_of_neighbours(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make_interface: Callable[[], interfaces.Interface],
    limit: int,
    complains: bool,
) -> None:
    (tmp_path / "ipv4/neigh/default").mkdir(parents=True)
    (tmp_path / "ipv4/neigh/default/gc_thresh3").write_text(f"{limit}\n")
    monkeypatch.setattr(doctor_dataplane, "_NEIGHBOURS", tmp_path)
    # Ten members in the network of the loopback interface, and ten that are behind a router.
    nodes = [{"addr": f"127.0.1.{number}", "local": False} for number in range(10)]
    nodes += [{"addr": f"198.18.61.{number}", "local": False} for number in range(10)]
    found = list(doctor_dataplane.neighbours(make_interface(), nodes))
    assert [("10 members" in finding.text, "gc_thresh3" in finding.remedy) for finding in found] == (
        [(True, True)] if complains else []
    )


@pytest.fixture
def make_interface() -> Callable[[], interfaces.Interface]:
    def make() -> interfaces.Interface:
        found = interfaces.by_name("lo")
        assert found is not None
        return found

    return make


def test_the_agent_uses_something_else() -> None:
    found = {"mode": "TC"}
    (finding,) = doctor_dataplane._use(found, {"mode": "UDP", "mode_reason": "no maps"})
    assert finding.level == "error" and "no maps" in finding.text
    assert not list(doctor_dataplane._use(found, {"mode": "TC", "mode_reason": ""}))


@pytest.mark.parametrize(
    ("number", "mtu", "words"),
    [
        ("ERANGE", 9000, "MTU of 9000"),
        ("EINVAL", 9000, "MTU of 9000"),
        ("EOPNOTSUPP", 1500, "driver of eth9 refuses"),
        ("ENOSPC", 1500, "queues"),
        ("EPERM", 1500, "Operation not permitted"),
        ("EIO", 1500, "EIO"),
    ],
)
def test_refusals_in_words(number: str, mtu: int, words: str) -> None:
    import errno

    interface = interfaces.Interface(99999, "eth9", "", mtu, up=True)
    code = getattr(errno, number)
    refusal = attach.why_no_xdp(OSError(code, os.strerror(code)), interface, "XDP (native)")
    assert words in refusal.reason and refusal.remedy
