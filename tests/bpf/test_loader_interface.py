# SPDX-License-Identifier: MIT
"""Interfaces that are late, renamed or of the wrong kind, and settings of theirs that stand in a mode's way."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import xdp_gossip
from tests.bpf.loader_world import COMMAND, IPV4, USER, World, run
from tests.bpf.test_loader_modes import CLSACT, spoil, without_compiler
from xdp_gossip.dataplane import headers, interfaces, layout, libbpf
from xdp_gossip.dataplane.libbpf import processors
from xdp_gossip.dataplane.loader import attach, ethtool, pins, traps
from xdp_gossip.dataplane.loader.errors import LoaderError, Refused
from xdp_gossip.dataplane.loader.programs import SOURCES

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and BPF")
NATIVE, GENERIC, TC = "XDP (native)", "XDP (generic)", "TC"


def make_again(here: World) -> None:
    """The veth and its address, as after the host was started."""
    link = ("ip", "link", "add", here.interface, "netns", here.namespace, "type", "veth", "peer", "name", here.peer)
    run(*link, "netns", here.beyond)
    here.inside("ip", "address", "add", f"{IPV4}/24", "dev", here.interface)
    here.inside("ip", "link", "set", here.interface, "up")
    here.outside("ip", "link", "set", here.peer, "up")
    here.outside("ethtool", "-K", here.peer, "gro", "on")


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("named", [False, True])
def test_what_is_not_there_yet_is_waited_for(here: World, named: bool) -> None:
    """The agent finds word of it, and a file by which it can ask the loader to look again; nothing is compiled then."""
    before = here.traces()
    here.configure(**({"dataplane": {"interface": here.interface}} if named else {}))
    here.inside("ip", "link", "delete", here.interface)
    missing = here.loader("up", check=False)
    assert missing.returncode == 3
    status = here.status()
    assert not status["up"] and status["reason"].startswith("waiting: ")
    assert (here.interface if named else IPV4) in status["reason"]
    ask = here.directory / "ask"
    found = ask.stat()
    # Root's group, because the unit's root may not pass over modes.
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (pwd.getpwnam(USER).pw_uid, 0, 0o775)
    assert here.loader("up", check=False).returncode == 3
    made = here.status()["programs"]
    assert set(made) == {name for part in SOURCES.values() for name in part}, (
        "the programs are made while the interface is waited for"
    )
    assert here.loader("up", check=False).returncode == 3
    make_again(here)
    (ask / "request").touch()
    assert without_compiler(here).stdout.startswith(f"up: {NATIVE}")
    assert here.status()["programs"] == made
    assert here.status()["waiting"] == ""
    assert (ask / "request").exists(), "whoever watches it takes it away before the loader looks, nobody afterwards"
    here.loader("down")
    assert not here.directory.exists()
    assert here.traces()["mounts"] == before["mounts"]


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_the_configuration_says_where_the_state_is(here: World) -> None:
    file = here.configure(dataplane={"directory": str(here.directory)})
    words = (COMMAND, "dataplane", "status", "--json", "--config", file)
    assert not json.loads(here.inside(*words, check=False).stdout)["up"]
    here.inside(COMMAND, "dataplane", "up", "--config", file, "--user", USER)
    shown = json.loads(here.inside(*words).stdout)
    assert shown["up"] and shown["interface"] == here.interface
    here.inside(COMMAND, "dataplane", "down", "--config", file)
    assert not here.directory.exists()


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_what_keeps_the_programs_from_being_made_ahead_is_told(here: World) -> None:
    before = here.traces()
    here.inside("ip", "link", "delete", here.interface)
    agent = str(Path(xdp_gossip.__file__).parents[1])
    command = f"import sys; sys.modules['bcc'] = None; sys.path.insert(0, {agent!r}); import xdp_gossip.cli as cli"
    up = ("dataplane", "up", "--config", here.configure(), "--directory", str(here.directory), "--user", USER)
    done = here.inside("/usr/bin/python3", "-c", f"{command}; sys.exit(cli.main())", *up, check=False)
    assert done.returncode == 3
    status = here.status()
    assert status["reason"].startswith("waiting: ") and status["programs"] == {}
    (note,) = status["notes"]
    assert note.startswith("no programs were made for the interface that is waited for: BCC is missing")
    make_again(here)
    assert here.loader("up").stdout.startswith(f"up: {NATIVE}")
    here.loader("down")
    here.expect_traces({**before, "interface": here.traces()["interface"]})


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_programs_that_wait_are_not_put_on_an_interface_without_ethernet_header(here: World) -> None:
    before = here.traces()
    here.configure(dataplane={"interface": "tun0"})
    assert here.loader("up", check=False).returncode == 3
    assert here.status()["programs"]
    here.inside("ip", "tuntap", "add", "tun0", "mode", "tun")
    here.inside("ip", "link", "set", "tun0", "up")
    refused = here.loader("up", check=False)
    assert refused.returncode == 3 and "tun0 is not an Ethernet interface" in refused.stderr
    status = here.status()
    assert "tun0 is not an Ethernet interface" in status["reasons"][0]["reason"] and status["programs"] == {}
    here.inside("ip", "link", "delete", "tun0")
    here.loader("down")
    here.expect_traces(before)


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("asked", [False, True], ids=["at once", "after a while"])
@pytest.mark.parametrize("clsact", [False, True], ids=["TCX", "clsact"])
def test_an_interface_that_is_made_again_gets_the_programs_and_maps_of_the_former(
    here: World, asked: bool, clsact: bool
) -> None:
    """No compiler is needed, and what the kernel knew of the members is known still."""
    before, forced = here.traces(), CLSACT if clsact else {}
    here.loader("up", **forced)
    old = here.status()
    with pins.opened(pins.pin_directory(here.directory) / "nexthops") as hops:
        libbpf.update(hops, bytes(16), bytes(layout.NEXTHOP.size))
    here.inside("ip", "link", "delete", here.interface)
    if asked:
        for _ in range(2):
            assert here.loader("up", check=False, **forced).returncode == 3
        status = here.status()
        assert (status["mode"], status["links"], status["programs"]) == ("", {}, old["programs"])
        assert status["reason"].startswith("waiting: ")
    make_again(here)
    assert without_compiler(here, **forced).stdout.startswith(f"up: {NATIVE}")
    new = here.status()
    assert new["up"] and (new["maps"], new["programs"]) == (old["maps"], old["programs"])
    with pins.opened(pins.pin_directory(here.directory) / "nexthops") as hops:
        assert libbpf.keys(hops, 16, 10) == [], "next hops are those of one interface"
    assert without_compiler(here, **forced).stdout.startswith(f"already up: {NATIVE}")
    here.loader("down")
    here.expect_traces({**before, "interface": here.traces()["interface"]})


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_an_address_that_has_moved_away_leaves_the_data_plane_until_it_returns(here: World) -> None:
    here.loader("up")
    old = here.status()
    here.inside("ip", "address", "delete", f"{IPV4}/24", "dev", here.interface)
    missing = here.loader("up", check=False)
    assert missing.returncode == 3 and "no interface has this address" in missing.stderr
    status = here.status()
    assert status["up"] and IPV4 in status["waiting"] and status["links"] == old["links"]
    here.inside("ip", "address", "add", f"{IPV4}/24", "dev", here.interface)
    assert here.loader("up").stdout.startswith(f"already up: {NATIVE}")
    new = here.status()
    assert new == {**old, "counters": new["counters"], "proved": new["proved"]}
    assert new["proved"] > old["proved"]


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("named", [False, True])
def test_an_interface_that_is_renamed_keeps_programs_and_maps(here: World, named: bool) -> None:
    here.configure(**({"dataplane": {"interface": here.interface}} if named else {}))
    here.loader("up")
    old, name = here.status(), here.interface
    here.inside("ip", "link", "set", name, "down")
    here.inside("ip", "link", "set", name, "name", "xgl-renamed")
    here.inside("ip", "link", "set", "xgl-renamed", "up")
    for _ in range(2):
        assert here.loader("up").stdout == f"already up: {NATIVE} on xgl-renamed\n"
    new = here.status()
    assert new["interface"] == "xgl-renamed" and new["up"]
    assert (new["links"], new["maps"], new["programs"]) == (old["links"], old["maps"], old["programs"])


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_a_bpffs_that_was_mounted_over_is_uncovered(here: World) -> None:
    before = here.traces()
    here.loader("up")
    old = here.status()
    for kind in ("bpf", "tmpfs"):
        run("mount", "-t", kind, "cover", str(here.directory / "bpf"))
    assert not here.status()["up"]
    assert here.loader("up").stdout.startswith(f"already up: {NATIVE}")
    assert here.status()["maps"] == old["maps"]
    run("mount", "-t", "tmpfs", "cover", str(here.directory / "bpf"))
    here.loader("down")
    here.expect_traces(before)


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_a_bpffs_that_was_unmounted_is_made_again(here: World) -> None:
    before = here.traces()
    here.loader("up")
    run("umount", "--lazy", str(here.directory / "bpf"))
    assert here.loader("up").stdout.startswith(f"up: {NATIVE}")
    assert here.status()["up"]
    here.loader("down")
    here.expect_traces(before)


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_a_layer_3_interface_is_refused_in_words(here: World) -> None:
    here.inside("ip", "tuntap", "add", "xgl-tun", "mode", "tun")
    here.inside("ip", "address", "add", "198.18.62.1/24", "dev", "xgl-tun")
    here.inside("ip", "link", "set", "xgl-tun", "up")
    here.configure(addr="198.18.62.1")
    refused = here.loader("up", check=False)
    assert refused.returncode == 3 and "xgl-tun is not an Ethernet interface (tun)" in refused.stderr
    status = here.status()
    assert "not an Ethernet interface" in status["reasons"][0]["reason"] and "UDP" in status["reasons"][0]["remedy"]
    assert not (here.directory / "bpf").exists()


def feature(here: World, name: str) -> bool:
    shown = json.loads(here.inside("ethtool", "--json", "-k", here.interface).stdout)[0]
    return bool(shown[name]["active"])


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_vlan_tags_beside_the_frame_bar_generic_xdp_unless_the_loader_may_keep_them_in_it(here: World) -> None:
    here.outside("ethtool", "-K", here.peer, "gro", "off")
    assert here.loader("up").stdout.startswith(f"up: {TC}")
    reason = here.status()["reasons"][1]
    assert reason["mode"] == GENERIC and "rx-vlan-offload" in reason["reason"]
    assert f"ethtool -K {here.interface} rxvlan off" in reason["remedy"] and "PEER txvlan off" in reason["remedy"]
    assert feature(here, "rx-vlan-offload")
    here.configure(dataplane={"prepare_interface": True})
    done = here.loader("up").stdout
    assert done.startswith(f"up: {GENERIC}") and "changed: rx-vlan-hw-parse from 1 to 0" in done
    assert not feature(here, "rx-vlan-offload")
    assert here.loader("up").stdout.startswith(f"already up: {GENERIC}")
    assert len(here.status()["changes"]) == 1
    here.loader("down")
    assert feature(here, "rx-vlan-offload"), "down sets back what up changed"


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_what_was_changed_in_vain_is_set_back_at_once(here: World, light: Path) -> None:
    here.outside("ethtool", "-K", here.peer, "gro", "off")
    here.configure(dataplane={"prepare_interface": True})
    spoil(light, "xg_xdp_ingress")
    assert here.loader("up").stdout.startswith(f"up: {TC}")
    assert feature(here, "rx-vlan-offload") and here.status()["changes"] == []


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_down_after_changes_to_an_interface_that_is_gone(here: World) -> None:
    here.outside("ethtool", "-K", here.peer, "gro", "off")
    here.configure(dataplane={"prepare_interface": True})
    assert here.loader("up").stdout.startswith(f"up: {GENERIC}")
    here.inside("ip", "link", "delete", here.interface)
    assert here.loader("down").stdout == "down\n"
    assert not here.directory.exists()


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_sources_of_what_was_dropped_and_copies_that_vanish_are_told(here: World) -> None:
    here.configure(dataplane={"directory": str(here.directory)})
    here.loader("up")
    pinned = pins.pin_directory(here.directory)
    names = list(headers.counters())
    with pins.opened(pinned / "refusals") as refusals, pins.opened(pinned / "counters") as counters:
        source = bytes(10) + b"\xff\xff" + bytes((198, 18, 0, 9))
        key = layout.REFUSAL_KEY.pack(source, names.index("drop_bad_mac"), 0)
        libbpf.update(refusals, key, layout.REFUSAL.pack(120, 1))
        for name, value in {"copy_due": 100, "copy": 60, "copy_surplus": 5, "copy_lost": 7}.items():
            number = struct.pack("=I", names.index(name))
            libbpf.update(counters, number, struct.pack(f"={processors()}Q", value, *(0,) * (processors() - 1)))
    status = here.status()
    assert status["copies_missing"] == 35
    (told,) = status["refusals"]
    assert (told["addr"], told["verdict"], told["samples"]) == ("198.18.0.9", "drop_bad_mac", 120)
    text = here.loader("status").stdout
    assert "198.18.0.9: 120 packets dropped as drop_bad_mac" in text and "35 copies were asked for and vanished" in text
    from tests.bpf.test_loader_doctor import doctor, only

    found = doctor(here)
    assert "secret" in only(found, "198.18.0.9: 120 packets")[1]
    assert "gro on" in only(found, "of 100 copies asked for, 7 were not sent by the driver and 35 never came")[1]


def interface(kind: str = "", mtu: int = 1500) -> interfaces.Interface:
    return interfaces.Interface(99999, "eth9", kind, mtu, up=True)


def offer(
    monkeypatch: pytest.MonkeyPatch,
    features: dict[str, ethtool.Feature],
    channels: ethtool.Channels | None = None,
    driver: str = "some",
) -> None:
    """An interface with these features and channels, of a driver that this machine has not."""
    monkeypatch.setattr(ethtool, "features", lambda name: features)
    monkeypatch.setattr(ethtool, "channels", lambda name: channels)
    monkeypatch.setattr(ethtool, "driver", lambda name: driver)
    monkeypatch.setattr(interfaces, "every", list)


@pytest.mark.parametrize("name", [ethtool.LRO, ethtool.GRO_HW])
def test_generic_xdp_is_refused_where_the_kernel_would_warn(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    offer(monkeypatch, {name: ethtool.Feature(on=True, fixed=True)})
    (trap,) = traps.survey(interface(), GENERIC)
    assert trap.bars and "warn and taint" in trap.reason and "ethtool" not in trap.remedy
    for found in (ethtool.Feature(on=True, fixed=False), ethtool.Feature(on=False, fixed=True)):
        offer(monkeypatch, {name: found})
        assert not list(traps.survey(interface(), GENERIC))


def test_a_member_of_a_bond_counts_as_the_bond(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {})
    bond = interface("bond")
    member = interfaces.Interface(7, "eth7", "", 1500, up=True, master=bond.index)
    monkeypatch.setattr(interfaces, "every", lambda: [bond, member])
    fixed = {ethtool.LRO: ethtool.Feature(on=True, fixed=True)}
    monkeypatch.setattr(ethtool, "features", lambda name: fixed if name == "eth7" else {})
    # A bond is refused for its VLAN tags, too.
    (trap,) = (found for found in traps.survey(bond, GENERIC) if "VLAN" not in found.reason)
    assert "eth7" in trap.reason


def test_a_remedy_that_cannot_work_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def remedy(**more: object) -> str:
        return attach.why_no_xdp(error, interface(**more), NATIVE).remedy  # type: ignore[arg-type]

    on, fixed = ethtool.Feature(on=True, fixed=False), ethtool.Feature(on=True, fixed=True)
    offer(monkeypatch, {ethtool.LRO: on}, ethtool.Channels(4, 4))
    assert "ethtool -K eth9 lro off" in remedy() and "ethtool -L eth9 combined 2" in remedy()
    offer(monkeypatch, {ethtool.GRO_HW: fixed}, ethtool.Channels(1, 1), "virtio_net")
    assert "ethtool" not in remedy() and "CTRL_GUEST_OFFLOADS" in remedy()
    # Fixed receive checksums alone, which no feature tells.
    offer(monkeypatch, {}, None, "virtio_net")
    assert "guest_csum=off" in remedy()
    offer(monkeypatch, {}, None, "bridge")
    assert "ethtool" not in remedy(kind="bridge") and "bridge" in remedy(kind="bridge")


def test_hidden_tags_of_a_device_are_a_note_for_native_xdp(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {ethtool.RX_VLAN: ethtool.Feature(on=True, fixed=False)})
    (trap,) = traps.survey(interface(), NATIVE)
    assert not trap.bars and trap.remedy == "ethtool -K eth9 rxvlan off"
    assert not list(traps.survey(interface("veth"), NATIVE))


def test_queues_of_virtio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    offer(monkeypatch, {}, ethtool.Channels(4, 4), "virtio_net")
    (trap,) = traps.survey(interface(), NATIVE)
    assert not trap.bars and trap.remedy == "ethtool -L eth9 combined 2"
    for channels in (ethtool.Channels(2, 4), ethtool.Channels(1, 1)):
        offer(monkeypatch, {}, channels, "virtio_net")
        assert not list(traps.survey(interface(), NATIVE))


def test_an_interface_without_ethernet_header() -> None:
    wireguard = interfaces.Interface(9, "wg0", "wireguard", 1420, up=True, ethernet=False)
    with pytest.raises(LoaderError, match=r"wg0 is not an Ethernet interface \(wireguard\)") as refused:
        traps.refuse_other_than_ethernet(wireguard)
    assert not isinstance(refused.value, Refused)


def test_features_are_those_that_ethtool_shows() -> None:
    found = ethtool.features("lo")
    assert found["loopback"] == ethtool.Feature(on=True, fixed=True)
    assert ethtool.channels("lo") is None and Path("/sys/class/net/lo").exists()


class Full:
    """A small file system for what the loader writes, which can be filled."""

    def __init__(self, here: World) -> None:
        self._here = here
        here.directory.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", str(here.directory))

    def fill(self) -> None:
        """To the last page."""
        with contextlib.suppress(OSError), (self._here.directory / "fill").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    def drain(self) -> None:
        """Make room again."""
        (self._here.directory / "fill").unlink()


@pytest.fixture
def full(here: World) -> Iterator[Full]:
    yield Full(here)
    run("umount", "--lazy", str(here.directory))


@pytest.mark.root
@root
@pytest.mark.usefixtures("light")
def test_a_full_disk_is_told_and_nothing_is_left_half_done(here: World, full: Full) -> None:
    before = here.traces()
    full.fill()
    failed = here.loader("up", check=False)
    assert failed.returncode == 1, "nothing that UDP is an answer to"
    assert failed.stderr == f"xdp-gossip: {here.directory}/state.json: No space left on device\n"
    here.expect_traces({**before, "files": here.traces()["files"]})
    full.drain()
    assert here.loader("up").stdout.startswith("up: ")
    maps = here.status()["maps"]
    full.fill()
    failed = here.loader("up", check=False)
    assert failed.returncode == 1 and f"{here.directory}/state.json: " in failed.stderr
    status = here.status()
    assert status["up"] and status["maps"] == maps, "what is up goes on"
    full.drain()
    assert here.loader("up").stdout.startswith("already up: ")
    full.fill()
    assert here.loader("down").stdout == "down\n"
    full.drain()
    here.expect_traces(before)
