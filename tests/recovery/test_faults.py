# SPDX-License-Identifier: MIT
"""A data plane in use fails, in each way that it can: noticed within two cycles, told, and mended by itself."""

from __future__ import annotations

import itertools
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.networks.foreign import XDP, XDP_PASS, loaded, returning
from tests.planes.fleet import Host, command
from tests.recovery.world import GENERIC, HUB, UDP, Watch, World, hub, pinned, plug, publish_during, there
from tests.support.fleet import eventually
from xdp_gossip.dataplane import libbpf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def pin_passing_program(path: str) -> None:
    """An XDP program that passes everything, pinned."""
    with loaded(returning(XDP_PASS), XDP) as descriptor:
        libbpf.pin(descriptor, path)


@pytest.mark.parametrize(
    ("link", "words", "proofs"),
    [
        ("link_xdp", "came past the programs|is not ours", ("passed_by", "detached")),
        ("link_tc_egress", "own rumors were not multiplied on eth0", ("carriers_lost",)),
    ],
)
def test_a_link_that_somebody_detaches(world: World, link: str, words: str, proofs: tuple[str, ...]) -> None:
    watch = Watch(world, world[1])
    command("bpftool", "link", "detach", "pinned", str(pinned(watch.host, link)))
    watch.gone()
    publish_during(world, watch, f"detached/{link}")
    assert "waiting for the loader to attach" in watch.noticed(words, *proofs)
    world.best(watch.host)
    watch.nobody_was_missed()
    assert watch.host.counters()["plane_asked"] > watch.before["plane_asked"]


def test_copies_that_vanish_because_the_peer_has_no_gro(world: World) -> None:
    watch = Watch(world, world[1])
    hub("ethtool", "-K", "v2", "gro", "off")
    try:
        watch.gone()
        publish_during(world, watch, "gro")
        watch.noticed("copies and answers vanished on eth0", "copies_lost")
        eventually(lambda: None if watch.host.status()["mode"] in (GENERIC, "TC") else "not in a lower mode", 60)
        reason = watch.host.status()["mode_reason"]
        assert "XDP (native)" in reason
        assert "the loader is asked" in reason
    finally:
        hub("ethtool", "-K", "v2", "gro", "on")
    world.best(watch.host)
    watch.nobody_was_missed()


def test_an_interface_deleted_and_made_again_under_load(world: World) -> None:
    """Two members publish all the time, on either side of the fault; whatever was acknowledged arrives."""
    watch = Watch(world, world[2])
    over, written = threading.Event(), []

    def publish(host: Host) -> int:
        for number in itertools.count():
            host.publish(f"deleted/{host.name}/{number}", b"under load")
            if over.wait(0.02):
                return number

    with ThreadPoolExecutor() as pool:
        try:
            written = [(host, pool.submit(publish, host)) for host in (world[0], watch.host)]
            command("ip", "-n", watch.host.namespace, "link", "del", "eth0")
            watch.gone()
            assert "waiting for an interface eth0" in watch.noticed("eth0 .* is gone", "interface_gone")
            plug(watch.host)
            world.best(watch.host)
        finally:
            over.set()
    for host, last in written:
        for number in range(last.result() + 1):
            eventually(lambda key=f"deleted/{host.name}/{number}": world.lacking(key, b"under load"), 30, 0.05)
    publish_during(world, watch, "deleted")


def test_an_interface_that_gets_another_name_goes_on(world: World) -> None:
    watch = Watch(world, world[1])
    there(watch.host, "ip", "link", "set", "eth0", "down")
    there(watch.host, "ip", "link", "set", "eth0", "name", "uplink0", "up")
    try:
        eventually(lambda: None if watch.host.status()["dataplane"]["interface"] == "uplink0" else "old name", 20)
        publish_during(world, watch, "renamed")
        world.best(watch.host)
    finally:
        there(watch.host, "ip", "link", "set", "uplink0", "down")
        there(watch.host, "ip", "link", "set", "uplink0", "name", "eth0", "up")
    world.best(watch.host)
    assert watch.host.counters()["plane_stepped_down"] == watch.before["plane_stepped_down"]


def test_a_carrier_that_is_lost_is_waited_for(world: World) -> None:
    watch = Watch(world, world[1])
    hub("ip", "link", "set", "v2", "down")
    eventually(
        lambda: None if "eth0 has no carrier" in watch.host.status()["mode_reason"] else "the status does not say it",
        10,
    )
    judged = watch.host.counters()["plane_judged"]
    eventually(lambda: None if watch.host.counters()["plane_judged"] >= judged + 3 else "few cycles", 20)
    hub("ip", "link", "set", "v2", "up")
    eventually(lambda: watch.host.status()["mode_reason"] or None, 10)
    publish_during(world, watch, "carrier")
    assert watch.host.counters()["plane_stepped_down"] == watch.before["plane_stepped_down"]


def test_an_address_that_goes_and_comes_late(world: World) -> None:
    watch = Watch(world, world[1])
    there(watch.host, "ip", "addr", "del", f"{watch.host.ip}/24", "dev", "eth0")
    watch.gone()
    watch.noticed("the node's address is not on eth0", "address_moved")
    eventually(lambda: None if watch.host.status()["mode"] == UDP else "not over UDP", 5)
    assert "waiting for" in watch.host.status()["mode_reason"]
    there(watch.host, "ip", "addr", "add", f"{watch.host.ip}/24", "dev", "eth0")
    world.best(watch.host)
    publish_during(world, watch, "address")


def test_an_address_that_moves_to_another_interface(world: World) -> None:
    watch = Watch(world, world[2])
    host = watch.host
    peer = ("type", "veth", "peer", "name", "w3", "netns", HUB)
    there(host, "ip", "link", "add", "eth1", *peer)
    hub("ip", "link", "set", "w3", "master", "br0", "up")
    hub("ethtool", "-K", "w3", "gro", "on")
    there(host, "ip", "link", "set", "eth1", "up")
    there(host, "ip", "addr", "del", f"{host.ip}/24", "dev", "eth0")
    there(host, "ip", "addr", "add", f"{host.ip}/24", "dev", "eth1")
    watch.gone()
    try:
        watch.noticed("the node's address is (on interface|not on)", "address_moved")
        world.best(host)
        assert host.status()["dataplane"]["interface"] == "eth1"
        publish_during(world, watch, "moved")
    finally:
        there(host, "ip", "addr", "del", f"{host.ip}/24", "dev", "eth1")
        there(host, "ip", "link", "del", "eth1")
        there(host, "ip", "addr", "add", f"{host.ip}/24", "dev", "eth0")


def test_a_bpffs_that_is_mounted_over(world: World) -> None:
    watch = Watch(world, world[1])
    mount: Path = watch.host.plane_dir / "bpf"
    command("mount", "-t", "bpf", "bpffs", str(mount))
    watch.gone()
    watch.noticed("its maps were taken down, or others are pinned", "maps_gone")
    publish_during(world, watch, "mounted")
    world.best(watch.host)
    watch.nobody_was_missed()


def test_an_mtu_that_native_xdp_does_not_take_and_back(world: World) -> None:
    """The kernel refuses it while native XDP is on, so it comes with an interface that is made anew."""
    watch = Watch(world, world[2])
    host = watch.host
    command("ip", "-n", host.namespace, "link", "del", "eth0")
    host.mtu = 9000
    try:
        plug(host)
        eventually(lambda: None if host.status()["mode"] in (GENERIC, "TC") else host.status()["mode"], 60)
        publish_during(world, watch, "large")
    finally:
        host.mtu = 1500
        hub("ip", "link", "set", "v3", "mtu", "1500")
        there(host, "ip", "link", "set", "eth0", "mtu", "1500")
    world.best(host)


def test_a_loader_that_is_killed_is_asked_again(world: World) -> None:
    watch = Watch(world, world[1])
    unit = world.units[1]
    runs = len(unit.runs)
    unit.environment["XDP_GOSSIP_DATAPLANE_DIE_AT"] = "hooks proved"
    try:
        command("bpftool", "link", "detach", "pinned", str(pinned(watch.host, "link_tc_egress")))
        watch.gone()
        watch.noticed("own rumors were not multiplied", "carriers_lost")
        eventually(lambda: None if len(unit.runs) > runs else "the loader did not run", 30)
    finally:
        unit.environment.clear()
    assert f"status {-signal.SIGKILL}" in unit.runs[runs]
    publish_during(world, watch, "killed")
    world.best(watch.host)
    watch.nobody_was_missed()
    assert watch.host.counters()["plane_asked"] >= watch.before["plane_asked"] + 2


def test_another_program_that_takes_the_interface_over(world: World) -> None:
    """Native XDP of somebody else: the agent goes on beside it, at TC, until that is gone."""
    watch = Watch(world, world[1])
    host = watch.host
    command("bpftool", "link", "detach", "pinned", str(pinned(host, "link_xdp")))
    program = "/sys/fs/bpf/xgr-foreign" if Path("/sys/fs/bpf/").is_mount() else str(host.plane_dir / "bpf" / "foreign")
    pin_passing_program(program)
    try:
        there(host, "ip", "link", "set", "dev", "eth0", "xdp", "pinned", program)
        watch.gone()
        watch.noticed("is not ours|came past the programs", "detached", "passed_by")
        eventually(lambda: None if host.status()["mode"] == "TC" else host.status()["mode_reason"], 60)
        assert "XDP (native)" in host.status()["mode_reason"]
        publish_during(world, watch, "foreign")
    finally:
        there(host, "ip", "link", "set", "dev", "eth0", "xdp", "off")
        Path(program).unlink()
    world.best(host)
    watch.nobody_was_missed()
