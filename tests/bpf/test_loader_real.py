# SPDX-License-Identifier: MIT
"""The loader with the real programs, as its unit runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bpf.loader_world import COMMAND, ROOT, USER, World
from xdp_gossip.cli.dataplane import NOT_UP
from xdp_gossip.dataplane import headers

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and BPF"),
]


@pytest.mark.parametrize("clsact", [False, True])
@pytest.mark.parametrize(("protocol", "mode"), [("XDP", "XDP (native)"), ("TC", "TC")])
def test_up_renew_and_down(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, mode: str, clsact: bool
) -> None:
    before = here.traces()
    here.configure(protocol)
    forced = {"XDP_GOSSIP_DATAPLANE_TC": "clsact"} if clsact else {}
    assert here.loader("up", **forced).stdout == f"up: {mode} on {here.interface}\n"
    copy = tmp_path.with_name(tmp_path.name + "-bpf")
    shutil.copytree(headers.directory(), copy)
    try:
        with (copy / "relay.h").open("a") as stream:
            stream.write("/* changed */\n")
        monkeypatch.setenv(headers.DIRECTORY_VARIABLE, str(copy))
        assert here.loader("up", **forced).stdout == f"upgraded: {mode} on {here.interface}\n"
    finally:
        shutil.rmtree(copy)
    monkeypatch.delenv(headers.DIRECTORY_VARIABLE)
    assert here.status()["up"]
    here.loader("down")
    here.expect_traces(before)


def test_frames_cross_while_the_data_plane_is_up(here: World) -> None:
    """What is none of the agent's passes the programs in both directions."""
    here.loader("up")
    here.outside("ip", "address", "add", "198.18.61.2/24", "dev", here.peer)
    code = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); "
    serve = code + "s.bind(('198.18.61.1', 9999)); print('ready', flush=True); d, a = s.recvfrom(99); s.sendto(d, a)"
    ask = code + "s.sendto(b'hello', ('198.18.61.1', 9999)); print(s.recv(99))"
    words = ["nsenter", f"--net=/run/netns/{here.namespace}", "/usr/bin/python3", "-c", serve]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        assert here.outside("/usr/bin/python3", "-c", ask).stdout == "b'hello'\n"
        assert server.wait(10) == 0


def test_the_capabilities_of_the_unit_are_enough_and_none_is_idle(here: World) -> None:
    unit = (ROOT / "agent" / "systemd" / "xdp-gossip-dataplane.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet=")]
    named = line.partition("=")[2].lower().replace("cap_", "").split()
    forced = {"XDP_GOSSIP_DATAPLANE_TC": "clsact"}
    for left_out in [None, *named]:
        kept = [f"+{name}" for name in named if name != left_out]
        words = ("--config", here.configure(), "--directory", str(here.directory), "--user", USER)
        drop = ("setpriv", f"--bounding-set=-all,{','.join(kept)}", "--no-new-privs")
        done = here.inside(*drop, COMMAND, "dataplane", "up", *words, check=False, environment=forced)
        assert (done.returncode == 0) == (left_out is None), (left_out, done.stdout, done.stderr)
        here.loader("down")


def test_the_release_has_what_the_loader_needs() -> None:
    for name in ("dataplane.c", "selftest.c", "maps.h", "kshim/include/linux/kconfig.h"):
        assert (ROOT / "bpf" / name).is_file()
    unit = (ROOT / "agent" / "systemd" / "xdp-gossip-dataplane.service").read_text()
    assert f"SuccessExitStatus={NOT_UP}\n" in unit
    private = ("ProtectSystem=", "ProtectHome=", "PrivateTmp=", "PrivateMounts=", "PrivateDevices=", "ProtectKernel")
    assert not [line for line in unit.splitlines() if line.startswith(private)]
