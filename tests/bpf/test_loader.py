# SPDX-License-Identifier: MIT
"""``xdp-gossip dataplane``: up, again, renewed, down, in each mode, and why not in a better one."""

from __future__ import annotations

import json
import os
import pwd
import threading
from pathlib import Path

import pytest

from tests.bpf.loader_world import COMMAND, IPV6, USER, World, run, world
from xdp_gossip.dataplane import headers, layout, libbpf
from xdp_gossip.dataplane.loader import maps, pins
from xdp_gossip.dataplane.maps import Loaded

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("light"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and BPF"),
]

NATIVE, GENERIC, TC = "XDP (native)", "XDP (generic)", "TC"
#: The self-test's programs.
PROGRAMS = ("xg_selftest_send", "xg_selftest_watch", "xg_selftest_knock")


def pinned(here: World) -> Path:
    return pins.pin_directory(here.directory)


def programs(here: World) -> dict[str, int]:
    """What sits on the hooks now, by hook."""
    shown = json.loads(here.inside("bpftool", "-j", "net", "show").stdout)[0]
    found = {f"xdp {entry['mode']}": entry["id"] for entry in shown["xdp"]}
    for entry in shown["tc"]:
        found[entry["kind"]] = entry.get("prog_id", entry.get("id"))
    for link in json.loads(run("bpftool", "-j", "link", "show").stdout):
        if link["id"] in here.status().get("links", {}).values() and link["type"] != "raw_tracepoint":
            found[f"link {link['id']}"] = link["prog_id"]
    return found


def test_up_status_and_down_leave_nothing(here: World) -> None:
    before = here.traces()
    assert here.loader("up").stdout == f"up: {NATIVE} on {here.interface}\n"
    status = here.status()
    assert (status["up"], status["mode"], status["interface"]) == (True, NATIVE, here.interface)
    assert list(status["counters"]) == list(headers.counters())
    assert set(status["programs"]) == {*PROGRAMS, "xg_xdp_ingress", "xg_xdp_egress", "xg_watch", "xg_tc_egress"}
    assert set(status["links"]) == {"link_xdp", "link_tc_egress", "link_watch"}
    text = here.loader("status").stdout
    assert NATIVE in text and here.interface in text
    assert here.loader("down").stdout == "down\n"
    here.expect_traces(before)
    again = here.loader("down")
    assert again.stdout == "was not up\n"
    gone = here.loader("status", check=False)
    assert gone.returncode == 3 and "down" in gone.stdout


def test_a_second_up_changes_nothing(here: World) -> None:
    here.loader("up")
    path = here.directory / "state.json"
    state, sitting, stamp = json.loads(path.read_text()), programs(here), Loaded.stamp(here.directory)
    assert here.loader("up").stdout.startswith(f"already up: {NATIVE}")
    again = json.loads(path.read_text())
    assert again["proved"] > state["proved"] >= state["since"]
    assert again == {**state, "proved": again["proved"]}
    assert Loaded.stamp(here.directory) != stamp, "the agent sees that it was proved"
    assert programs(here) == sitting


def test_the_maps_are_those_of_the_layout_and_the_agents_users_alone(here: World) -> None:
    here.configure(limits={"nodes": 321})
    here.loader("up")
    assert maps.misfits(pinned(here), 321) == []
    assert [line.split(":")[0] for line in maps.misfits(pinned(here), 322)] == ["map nodes"]
    user = pwd.getpwnam(USER)
    for name in maps.expected(1):
        found = (pinned(here) / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (user.pw_uid, 0, 0o660), name
    for path in pinned(here).iterdir():
        if path.name.startswith(("link_", "prog_")):
            assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600), path


def test_the_agents_user_sees_the_status_and_cannot_touch_the_programs(here: World) -> None:
    here.loader("up")
    here.files.chmod(0o755)
    words = [COMMAND, "dataplane", "status", "--json", "--directory", str(here.directory)]
    code = f"import json, os; os.setgroups([]); os.setgid(65534); os.setuid({pwd.getpwnam(USER).pw_uid}); "
    code += f"os.execv({COMMAND!r}, {words!r})"
    for _ in range(20):
        # Up to pytest's own, which is one more where tests run side by side. A pytest that begins takes the right away.
        for directory in [here.files, *here.files.parents][:4]:
            directory.chmod(directory.stat().st_mode | 0o011)
        done = here.inside("/usr/bin/python3", "-c", code, check=False)
        if "Permission denied" not in done.stderr:
            break
    report = json.loads(done.stdout)
    assert report["up"] and report["counters"]["pass_odd"] == 0
    down = here.inside("/usr/bin/python3", "-c", code.replace("'status', '--json'", "'down'"), check=False)
    assert down.returncode == 1
    assert here.status()["up"]


def test_changed_sources_are_exchanged_under_running_hooks_and_the_maps_stay(here: World, light: Path) -> None:
    here.loader("up")
    with pins.opened(pinned(here) / "nodes") as nodes:
        key = layout.NODE_KEY.pack(bytes(15) + b"\1", b"\1\0", 0)
        libbpf.update(nodes, key, bytes(layout.NODE.size))
    old, sitting = here.status(), programs(here)
    with (light / "dataplane.c").open("a") as stream:
        stream.write("\n/* changed */\n")
    assert here.loader("up").stdout.startswith(f"upgraded: {NATIVE}")
    new = here.status()
    # The link of a tracepoint takes no other program: it is made anew.
    assert new["links"] == {**old["links"], "link_watch": new["links"]["link_watch"]} and new["maps"] == old["maps"]
    assert not set(new["programs"].values()) & set(old["programs"].values())
    assert programs(here).keys() == sitting.keys() and programs(here) != sitting
    with pins.opened(pinned(here) / "nodes") as nodes:
        assert libbpf.lookup(nodes, key, layout.NODE.size) == bytes(layout.NODE.size)
    assert here.loader("up").stdout.startswith("already up")


def test_another_size_of_a_map_begins_anew(here: World) -> None:
    here.loader("up")
    old = here.status()["maps"]
    here.configure(limits={"nodes": 300})
    assert here.loader("up").stdout.startswith(f"up: {NATIVE}")
    assert not set(old.values()) & set(here.status()["maps"].values())


def test_another_amount_is_an_upgrade(here: World) -> None:
    here.loader("up")
    here.configure(amount=30)
    assert here.loader("up").stdout.startswith("upgraded")
    status = here.status()
    assert (status["amount"], status["wide"]) == (30, 64)


@pytest.mark.parametrize("clsact", [False, True])
@pytest.mark.parametrize(("protocol", "mode"), [("XDP", NATIVE), ("TC", TC), ("auto", NATIVE)])
def test_protocols(here: World, protocol: str, mode: str, clsact: bool) -> None:
    before = here.traces()
    here.configure(protocol)
    forced = {"XDP_GOSSIP_DATAPLANE_TC": "clsact"} if clsact else {}
    assert here.loader("up", **forced).stdout.startswith(f"up: {mode}")
    status = here.status()
    assert status["up"] and status["tc"] == ("clsact" if clsact else "TCX")
    filters = here.inside("tc", "filter", "show", "dev", here.interface, "egress").stdout
    assert ("xg_tc_egress" in filters) == clsact
    assert here.loader("up", **forced).stdout.startswith("already up")
    here.loader("down")
    here.expect_traces(before)


def test_what_llvm_says_is_heard_though_it_ends_the_process(here: World, light: Path) -> None:
    with (light / "dataplane.c").open("a") as stream:
        stream.write("""
int xg_huge(struct __sk_buff *skb)
{
	volatile char room[600] = {};

	return room[skb->len & 511];
}
""")
    failed = here.loader("up", check=False)
    # Not 3, "no mode can be had here", which the unit takes for success: LLVM ended the process, somebody has to know.
    assert failed.returncode == 1
    assert "dataplane.c: does not compile: the compiler gave up" in failed.stderr
    assert "stack" in failed.stderr


def test_another_protocol_begins_with_its_best_mode(here: World) -> None:
    here.configure("TC")
    assert here.loader("up").stdout.startswith(f"up: {TC}")
    here.configure("auto")
    assert here.loader("up").stdout.startswith(f"up: {NATIVE}")
    here.configure("XDP")
    assert here.loader("up").stdout.startswith(f"already up: {NATIVE}")


def add_filter(here: World, hook: str, incumbent: Path) -> None:
    """A filter of somebody else's."""
    program = ("bpf", "direct-action", "object-pinned", str(incumbent.with_name("neighbour")))
    here.inside("tc", "filter", "add", "dev", here.interface, hook, *program)


def test_a_clsact_of_somebody_else_is_used_and_stays_with_its_filters(here: World, incumbent: Path) -> None:
    here.inside("tc", "qdisc", "add", "dev", here.interface, "clsact")
    add_filter(here, "egress", incumbent)
    before = here.traces()
    here.loader("up", XDP_GOSSIP_DATAPLANE_TC="clsact")
    here.loader("down")
    here.expect_traces(before)
    assert "neighbour" in here.inside("tc", "filter", "show", "dev", here.interface, "egress").stdout


def test_a_clsact_of_ours_stays_when_somebody_else_has_come_to_use_it(here: World, incumbent: Path) -> None:
    here.loader("up", XDP_GOSSIP_DATAPLANE_TC="clsact")
    add_filter(here, "ingress", incumbent)
    here.loader("down")
    assert "neighbour" in here.inside("tc", "filter", "show", "dev", here.interface, "ingress").stdout
    assert "xg_tc" not in here.inside("tc", "filter", "show", "dev", here.interface, "egress").stdout


def test_filters_are_renewed_in_place(here: World, light: Path) -> None:
    here.configure("TC")
    here.loader("up", XDP_GOSSIP_DATAPLANE_TC="clsact")
    with (light / "dataplane.c").open("a") as stream:
        stream.write("\n/* changed */\n")
    assert here.loader("up", XDP_GOSSIP_DATAPLANE_TC="clsact").stdout.startswith("upgraded")
    for hook in ("ingress", "egress"):
        shown = here.inside("tc", "filter", "show", "dev", here.interface, hook).stdout
        assert shown.count("handle 0x5847") == 1
        assert f"id {here.status()['programs'][f'xg_tc_{hook}']} " in shown


@pytest.mark.parametrize("flag", ["xdpdrv", "xdpgeneric"])
def test_an_incumbent_xdp_program_is_left_alone(here: World, flag: str, incumbent: Path) -> None:
    here.inside("ip", "link", "set", here.interface, flag, "pinned", str(incumbent))
    before = here.traces()
    assert here.loader("up").stdout.startswith(f"up: {TC}")
    reasons = here.status()["reasons"]
    assert [reason["mode"] for reason in reasons] == [NATIVE, GENERIC]
    assert all("incumbent" in reason["reason"] and reason["remedy"] for reason in reasons)
    here.configure("XDP")
    refused = here.loader("up", check=False)
    assert refused.returncode == 1 and "has an XDP program already" in refused.stderr
    here.loader("down")
    here.expect_traces(before)
    assert "prog/xdp" in before["interface"] and "prog/xdp" in here.traces()["interface"]  # type: ignore[operator]


def test_a_peer_without_gro_steps_down_to_generic(tmp_path: Path) -> None:
    with world(tmp_path, gro=False) as here:
        here.plain_tags()
        before = here.traces()
        assert here.loader("up").stdout.startswith(f"up: {GENERIC}")
        (reason,) = here.status()["reasons"]
        assert reason["mode"] == NATIVE and "GRO" in reason["reason"] and "ethtool" in reason["remedy"]
        here.loader("down")
        here.expect_traces(before)


def test_a_peer_that_loses_gro_is_noticed_by_the_next_upgrade(here: World) -> None:
    here.plain_tags()
    here.loader("up")
    here.outside("ethtool", "-K", here.peer, "gro", "off")
    here.configure(amount=5)
    assert here.loader("up").stdout.startswith(f"up: {GENERIC}")


def test_a_large_mtu_steps_down_to_generic(here: World) -> None:
    here.plain_tags()
    here.inside("ip", "link", "set", here.interface, "mtu", "9000")
    here.outside("ip", "link", "set", here.peer, "mtu", "9000")
    assert here.loader("up").stdout.startswith(f"up: {GENERIC}")
    (reason,) = here.status()["reasons"]
    assert "MTU of 9000" in reason["reason"]


def test_the_interface_may_be_named_and_ipv6_be_its_address(here: World) -> None:
    here.configure(addr=IPV6)
    assert here.loader("up").stdout.startswith(f"up: {NATIVE} on {here.interface}")
    here.configure(addr="198.18.61.77")
    missing = here.loader("up", check=False)
    assert missing.returncode == 3 and "no interface has this address" in missing.stderr
    assert here.loader("up", "--interface", here.interface).stdout.startswith("already up")
    wrong = here.loader("up", "--interface", "xgl-none", check=False)
    assert wrong.returncode == 3 and f"expected one of lo, {here.interface}, found none" in wrong.stderr


def test_loopback_is_refused_in_words(here: World) -> None:
    here.inside("ip", "link", "set", "lo", "up")
    here.configure(addr="127.0.0.1")
    refused = here.loader("up", check=False)
    assert refused.returncode == 3 and "loopback" in refused.stderr and "loopback" in here.status()["reason"]


def test_no_data_plane_is_wanted_for_udp(here: World) -> None:
    before = here.traces()
    here.loader("up")
    here.configure("UDP")
    assert "no data plane is wanted: protocol is UDP; the old one is down" in here.loader("up").stdout
    here.expect_traces(before)


@pytest.mark.parametrize(("protocol", "status_code"), [("auto", 3), ("XDP", 1), ("TC", 1)])
def test_a_failure_leaves_its_reason_and_nothing_else(
    here: World, light: Path, protocol: str, status_code: int
) -> None:
    """Where UDP will do, as with `auto`, the unit takes the exit status for a success and does not show as failed."""
    before = here.traces()
    here.configure(protocol)
    (light / "dataplane.c").write_text("int xg_xdp_ingress(struct xdp_md *ctx) { return nonsense; }")
    failed = here.loader("up", check=False)
    assert failed.returncode == status_code and "does not compile" in failed.stderr and "nonsense" in failed.stderr
    status = here.status()
    assert not status["up"] and "does not compile" in status["reasons"][0]["reason"]
    assert not (here.directory / "bpf").exists()
    here.loader("down")
    here.expect_traces(before)


def test_an_interface_that_went_and_came_back_is_attached_to_again(here: World) -> None:
    here.loader("up")
    here.inside("ip", "link", "delete", here.interface)
    assert "gone" in here.status()["reason"] and not here.status()["up"]
    link = ("ip", "link", "add", here.interface, "netns", here.namespace, "type", "veth", "peer", "name", here.peer)
    run(*link, "netns", here.beyond)
    here.inside("ip", "address", "add", "198.18.61.1/24", "dev", here.interface)
    here.inside("ip", "link", "set", here.interface, "up")
    here.outside("ip", "link", "set", here.peer, "up")
    here.plain_tags()
    assert here.loader("up").stdout.startswith(f"up: {GENERIC}")
    assert here.status()["up"]


def test_two_loaders_at_once_do_one_thing_after_the_other(here: World) -> None:
    here.configure()
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(here.loader("up").stdout)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(text.split(":")[0] for text in said) == ["already up", "already up", "up"]


def test_an_unreadable_state_is_cleared_away(here: World) -> None:
    before = here.traces()
    here.loader("up")
    (here.directory / "state.json").write_text("{")
    assert here.loader("status", check=False).returncode == 1
    here.loader("down")
    here.expect_traces(before)


def test_a_program_that_drops_what_is_not_the_agents_costs_its_mode(here: World, light: Path) -> None:
    before = here.traces()
    main = light / "dataplane.c"
    main.write_text(main.read_text().replace("xg_broadcast(true) : XDP_PASS", "xg_broadcast(true) : XDP_DROP"))
    assert here.loader("up").stdout.startswith(f"up: {TC}")
    reasons = here.status()["reasons"]
    assert [reason["mode"] for reason in reasons] == [NATIVE, GENERIC]
    expected = "self-test: xg_xdp_ingress on a frame of another protocol: expected verdict 2, got 1"
    assert reasons[0]["reason"] == expected
    here.loader("down")
    here.expect_traces(before)
