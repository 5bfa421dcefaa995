# SPDX-License-Identifier: MIT
"""Each mode loads the programs it needs and is proved by frames that travel; a better one is taken when it carries."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.bpf.loader_world import IPV4, IPV6, World
from xdp_gossip.dataplane import libbpf
from xdp_gossip.dataplane.loader import pins, steps

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("light"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and BPF"),
]

NATIVE, GENERIC, TC = "XDP (native)", "XDP (generic)", "TC"
CLSACT = {"XDP_GOSSIP_DATAPLANE_TC": "clsact"}
#: Reads behind the packet's end: no verifier takes it.
UNACCEPTABLE = "\tif (*((volatile __u8 *)(long)ctx->data + 9)) return 0;\n"


def spoil(light: Path, program: str) -> None:
    """Make a program one that the verifier rejects."""
    main = light / "dataplane.c"
    text = main.read_text()
    start = text.index("{\n", text.index(f"int {program}(")) + 2
    line = UNACCEPTABLE if "__sk_buff" not in text[start - 60 : start] else UNACCEPTABLE.replace("ctx", "skb")
    if program == "xg_watch":
        line = "\tif (*(volatile __u64 *)0) return 0;\n"
    main.write_text(text[:start] + line + text[start:])


@pytest.mark.parametrize(
    ("program", "mode", "lost"),
    [
        ("xg_xdp_ingress", TC, [NATIVE, GENERIC]),
        ("xg_xdp_egress", TC, [NATIVE, GENERIC]),
        ("xg_tc_ingress", NATIVE, []),
        ("xg_tc_egress", "", [""]),
        ("xg_watch", NATIVE, []),
    ],
)
def test_a_rejected_program_costs_its_modes_and_no_other(
    here: World, light: Path, program: str, mode: str, lost: list[str]
) -> None:
    here.plain_tags()
    before = here.traces()
    spoil(light, program)
    done = here.loader("up", check=False)
    assert done.returncode == (0 if mode else 3), done.stderr
    status = here.status()
    assert (status["mode"], [reason["mode"] for reason in status["reasons"]]) == (mode, lost)
    for reason in status["reasons"]:
        assert reason["reason"].startswith(f"{program}: the kernel's verifier rejects it: R"), reason
        assert f"kernel {os.uname().release}, BCC " in reason["reason"] and "LLVM" in reason["reason"]
        assert "\n" not in reason["reason"] and "processed " in reason["detail"] and reason["remedy"]
        assert "doctor" not in reason["remedy"]
        assert reason["reason"] in done.stdout + done.stderr and "processed " in done.stdout + done.stderr
    if program == "xg_watch":
        assert any("xg_watch" in note for note in status["notes"])
    # What is rejected once is not compiled again, also while the address is awaited.
    again = without_compiler(here, check=bool(mode))
    assert again.stdout.startswith(f"already up: {mode}") if mode else again.returncode == 3, again.stderr
    assert here.status()["reasons"] == status["reasons"]
    if not mode:
        here.configure("auto", addr="198.18.255.254")
        assert "no interface has this address" in without_compiler(here, check=False).stderr
        here.configure("auto")
        again = without_compiler(here, check=False)
        assert again.returncode == 3 and here.status()["reasons"] == status["reasons"], again.stderr
    here.loader("down")
    here.expect_traces(before)


def test_a_rejected_program_of_a_mode_that_is_wanted_alone(here: World, light: Path) -> None:
    spoil(light, "xg_tc_ingress")
    here.configure("TC")
    refused = here.loader("up", check=False)
    assert refused.returncode == 1 and "xg_tc_ingress: the kernel's verifier rejects it" in refused.stderr


def test_new_programs_that_the_kernel_rejects_altogether_do_not_replace_those_that_carry(
    here: World, light: Path
) -> None:
    here.loader("up")
    old = here.status()
    spoil(light, "xg_tc_egress")
    refused = here.loader("up", check=False)
    assert refused.returncode == 3 and "the old ones go on" in refused.stderr
    new = here.status()
    assert new["up"] and new["programs"] == old["programs"]


def without_compiler(here: World, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """``up``, which is killed when it compiles."""
    done: subprocess.CompletedProcess[str] = here.loader(
        "up", check=check, **environment, **{steps.VARIABLE: "compiled"}
    )
    return done


@pytest.mark.parametrize("clsact", [False, True])
@pytest.mark.parametrize("mode", [NATIVE, GENERIC, TC])
def test_a_second_up_proves_each_mode_by_frames_and_needs_no_compiler(here: World, mode: str, clsact: bool) -> None:
    forced = CLSACT if clsact else {}
    here.configure("TC" if mode == TC else "auto")
    if mode == GENERIC:
        here.plain_tags()
        here.outside("ethtool", "-K", here.peer, "gro", "off")
    assert here.loader("up", **forced).stdout.startswith(f"up: {mode}")
    before = here.status()["counters"]
    state = json.loads((here.directory / "state.json").read_text())
    assert without_compiler(here, **forced).stdout.startswith(f"already up: {mode}")
    again = json.loads((here.directory / "state.json").read_text())
    assert again.pop("proved") > state.pop("proved")
    assert again == state
    after = here.status()["counters"]
    assert after["selftest_egress"] > before["selftest_egress"]
    # Nothing but a driver makes a frame arrive at native XDP.
    assert (after["selftest_ingress"] > before["selftest_ingress"]) == (mode != NATIVE)


def test_up_moves_up_when_a_better_mode_comes_to_carry_and_keeps_the_maps(here: World) -> None:
    here.outside("ethtool", "-K", here.peer, "gro", "off")
    assert here.loader("up").stdout.startswith(f"up: {TC}")
    maps = here.status()["maps"]
    here.plain_tags()
    assert without_compiler(here).stdout.startswith(f"up: {GENERIC}")
    assert without_compiler(here).stdout.startswith(f"already up: {GENERIC}")
    here.outside("ethtool", "-K", here.peer, "gro", "on")
    assert without_compiler(here).stdout.startswith(f"up: {NATIVE}")
    status = here.status()
    assert status["up"] and status["maps"] == maps and status["reasons"] == []
    assert set(status["links"]) == {"link_xdp", "link_tc_egress", "link_watch"}


def test_up_steps_down_when_the_mode_carries_no_longer_and_keeps_the_maps(here: World) -> None:
    here.loader("up")
    maps = here.status()["maps"]
    here.outside("ethtool", "-K", here.peer, "gro", "off")
    assert here.loader("up").stdout.startswith(f"up: {TC}")
    status = here.status()
    assert status["up"] and status["maps"] == maps
    assert set(status["links"]) == {"link_tc_ingress", "link_tc_egress"}
    assert "GRO" in status["reasons"][0]["reason"]


@pytest.mark.parametrize("name", ["link_xdp", "link_tc_egress"])
def test_a_link_that_was_detached_is_attached_again_with_the_maps_kept(here: World, name: str) -> None:
    here.loader("up")
    old = here.status()
    with pins.opened(pins.pin_directory(here.directory) / name) as link:
        libbpf.link_detach(link)
    assert not here.status()["up"]
    assert without_compiler(here).stdout.startswith(f"repaired: {NATIVE}")
    new = here.status()
    assert new["up"] and new["maps"] == old["maps"]


#: Attaches a program that ends the chain ahead of all others, and holds it until its input ends.
_STARVE = """
import ctypes, sys
sys.path.insert(0, sys.argv[3])
from bcc import BPF
from xdp_gossip.dataplane import libbpf
program = BPF(text="int ends_chain(struct __sk_buff *s) { return 0; }", cflags=sys.argv[4].split())
function = program.load_func("ends_chain", BPF.SCHED_CLS)
link = libbpf.link_create(function.fd, int(sys.argv[1]), int(sys.argv[2]), libbpf.BEFORE)
print("attached", flush=True)
sys.stdin.read()
"""


class Starver:
    """A program of another process at the head of a TCX hook, for as long as the ``with`` lasts."""

    def __init__(self, here: World, hook: str) -> None:
        from tests.bpf.loader_world import ROOT, bcc_flags
        from xdp_gossip.dataplane import headers

        index = json.loads(here.inside("ip", "-j", "link", "show", here.interface).stdout)[0]["ifindex"]
        kind = {"ingress": libbpf.TCX_INGRESS, "egress": libbpf.TCX_EGRESS}[hook]
        self._words = ["nsenter", f"--net=/run/netns/{here.namespace}", "/usr/bin/python3", "-c", _STARVE]
        self._words += [str(index), str(kind), str(ROOT / "agent"), " ".join(bcc_flags())]
        self._environment = {**os.environ, "BCC_KERNEL_SOURCE": str(headers.directory() / "kshim")}

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            self._words, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "attached\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate("", timeout=30)


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_ours_is_attached_ahead_of_a_program_that_ends_the_chain(here: World, hook: str) -> None:
    here.configure("TC")
    with Starver(here, hook):
        assert here.loader("up").stdout.startswith(f"up: {TC}")
        assert here.status()["up"]


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_program_that_comes_later_and_ends_the_chain_is_noticed_and_ours_put_ahead(here: World, hook: str) -> None:
    here.configure("TC")
    here.loader("up")
    maps = here.status()["maps"]
    with Starver(here, hook):
        assert without_compiler(here).stdout.startswith(f"repaired: {TC}")
        assert without_compiler(here).stdout.startswith(f"already up: {TC}")
        assert here.status()["maps"] == maps


class Filters:
    """Filters of somebody else at both hooks of a clsact."""

    def __init__(self, here: World, incumbent: Path, protocol: str, priority: str) -> None:
        self._here, self._place = here, ("protocol", protocol, "prio", priority)
        self._pinned = incumbent
        here.inside("tc", "qdisc", "add", "dev", here.interface, "clsact")

    def add(self, program: str, *hooks: str) -> None:
        """Attach ``ends_chain`` or ``neighbour``."""
        what = ("bpf", "direct-action", "object-pinned", str(self._pinned.with_name(program)))
        for hook in hooks:
            self._here.inside("tc", "filter", "add", "dev", self._here.interface, hook, *self._place, *what)

    def remove(self, hook: str) -> None:
        """And take them away."""
        self._here.inside("tc", "filter", "del", "dev", self._here.interface, hook, *self._place)

    def shown(self, hook: str) -> str:
        """As tc shows them, those that run first at the top."""
        return str(self._here.inside("tc", "filter", "show", "dev", self._here.interface, hook).stdout)


@pytest.mark.parametrize(("protocol", "priority"), [("all", "1"), ("all", "7"), ("ip", "7"), ("ip", "50000")])
def test_a_filter_that_ends_the_chain_is_behind_ours(
    here: World, incumbent: Path, priority: str, protocol: str
) -> None:
    here.configure("TC")
    others = Filters(here, incumbent, protocol, priority)
    others.add("ends_chain", "ingress", "egress")
    before = here.traces()
    assert here.loader("up", **CLSACT).stdout.startswith(f"up: {TC}")
    for hook in ("ingress", "egress"):
        shown = others.shown(hook)
        assert shown.index(f"xg_tc_{hook}") < shown.index("ends_chain"), shown
    assert here.loader("up", **CLSACT).stdout.startswith(f"already up: {TC}")
    here.loader("down")
    here.expect_traces(before)


@pytest.mark.parametrize(("protocol", "addr"), [("ip", IPV4), ("ipv6", IPV6)])
@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_one_of_the_first_priority_for_the_packets_of_the_agent_ends_the_chain(
    here: World, incumbent: Path, hook: str, protocol: str, addr: str
) -> None:
    """No filter for all protocols can be beside it, so ours comes behind, and no packet of the agent gets there."""
    here.configure("TC", addr)
    others = Filters(here, incumbent, protocol, "1")
    others.add("ends_chain", hook)
    before = here.traces()
    refused = here.loader("up", check=False, **CLSACT)
    assert refused.returncode == 1
    wanted = f"filters of somebody else run before ours at TC {hook} of {here.interface}, under priority 1, and end the"
    assert wanted in refused.stderr
    status = here.status()
    assert not status["up"] and wanted in status["reasons"][0]["reason"]
    assert f"tc filter show dev {here.interface} {hook}" in status["reasons"][0]["remedy"]
    here.expect_traces({**before, "files": here.traces()["files"]})
    others.remove(hook)
    assert here.loader("up", **CLSACT).stdout.startswith(f"up: {TC}")
    assert here.status()["notes"] == []
    others.add("ends_chain", hook)
    assert here.loader("up", check=False, **CLSACT).returncode == 1, "one that comes later is found by the next look"


@pytest.mark.parametrize(("protocol", "program"), [("ip", "neighbour"), ("arp", "ends_chain")])
def test_one_of_the_first_priority_that_lets_the_packets_of_the_agent_pass_is_told_of(
    here: World, incumbent: Path, protocol: str, program: str
) -> None:
    here.configure("TC")
    Filters(here, incumbent, protocol, "1").add(program, "ingress", "egress")
    assert here.loader("up", **CLSACT).stdout.startswith(f"up: {TC}")
    told = f"filters of somebody else run before ours at TC {{}} of {here.interface}, under priority 1: "
    notes = here.status()["notes"]
    assert [note.startswith(told.format(hook)) for hook, note in zip(("egress", "ingress"), notes)] == [True, True]
