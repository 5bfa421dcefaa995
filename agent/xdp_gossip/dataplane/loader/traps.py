# SPDX-License-Identifier: MIT
"""Before a program is attached, finds interface settings that would make the mode fail, and suggests commands that
change them.

With ``dataplane.prepare_interface``, the loader changes the settings itself, records the former values, and restores
them at ``down``. A command that would fail on the interface is not suggested. The MTU is never changed, because peers
would keep sending frames of the former size.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import interfaces
from . import ethtool, state
from .errors import LoaderError, Refused
from .settings import GENERIC, NATIVE, Settings

_CHANNELS = "channels"
#: Maximum MTU for native XDP with drivers that store a frame, its headroom and the kernel's metadata in one page.
LARGE_MTU = os.sysconf("SC_PAGE_SIZE") - 256 - 320 - 22


@dataclass(frozen=True)
class Trap:
    """An obstacle to a mode. ``bars``: whether the obstacle makes the mode impossible.

    The obstacle disappears if ``setting`` is set to ``value``.
    """

    reason: str
    remedy: str
    bars: bool
    interface: interfaces.Interface
    setting: str = ""
    value: int = 0


def refuse_other_than_ethernet(interface: interfaces.Interface) -> None:
    """Raise ``LoaderError`` for an interface without Ethernet headers, such as wireguard, tun and ppp."""
    if not interface.ethernet:
        raise LoaderError(
            f"{interface.name} is not an Ethernet interface ({interface.kind or 'no kind'}): its packets have no "
            "Ethernet header, which the programs read and write",
            "no action is needed to use UDP; for a data plane, set node.addr to an address of an Ethernet interface",
        )


def clear(settings: Settings, mode: str, now: state.State) -> list[str]:
    """Find the obstacles to ``mode``, and remove them if the settings allow it. Returns notes about the obstacles that
    remain.

    Raises ``Refused``.
    """
    notes = []
    for trap in survey(settings.interface, mode):
        if settings.prepare and trap.setting and _change(settings, trap, now):
            continue
        if trap.bars:
            raise Refused(trap.reason, trap.remedy)
        notes.append(f"{trap.reason}: {trap.remedy}")
    return notes


def prepare_native(settings: Settings, now: state.State) -> bool:
    """If ``settings.prepare`` allows it, change the settings that make drivers refuse native XDP.

    Returns whether anything was changed.

    Raises ``Refused``.
    """
    if not settings.prepare:
        return False
    changed = [_change(settings, trap, now) for trap in offloads_and_queues(settings.interface)]
    return any(changed)


def survey(interface: interfaces.Interface, mode: str) -> Iterator[Trap]:
    """Yield the obstacles that are known before a mode is tried.

    A setting that cannot be read does not count as an obstacle.
    """
    if mode == GENERIC:
        yield from _warns(interface)
        yield from _hidden_tags(interface, bars=True)
    elif mode == NATIVE and not interface.kind:
        yield from _hidden_tags(interface, bars=False)
        yield from _few_queues(interface)


def offloads_and_queues(interface: interfaces.Interface) -> list[Trap]:
    """Find settings that can be changed and that make a driver refuse native XDP: receive offloads, too many queues."""
    found = []
    name, known = interface.name, _features(interface)
    for feature in (ethtool.LRO, ethtool.GRO_HW):
        state_of = known.get(feature)
        if state_of is not None and state_of.on and not state_of.fixed:
            word = ethtool.WORDS[feature]
            remedy = f"ethtool -K {name} {word} off"
            found.append(Trap(f"{word} of {name} is on", remedy, False, interface, feature, 0))
    queues = _channels(interface)
    if queues is not None and queues.most > 1 and queues.combined > queues.most // 2:
        text = f"{name} uses {queues.combined} of {queues.most} queues, and XDP wants as many again"
        remedy = f"ethtool -L {name} combined {queues.most // 2}"
        found.append(Trap(text, remedy, False, interface, _CHANNELS, queues.most // 2))
    return found


def native_remedy(interface: interfaces.Interface) -> str:
    """The commands that may make the driver accept native XDP, limited to commands that can work on this interface."""
    commands = [trap.remedy for trap in offloads_and_queues(interface)]
    if interface.mtu > LARGE_MTU:
        commands.append(f"ip link set {interface.name} mtu {min(1500, LARGE_MTU)}")
    if commands:
        return "; ".join(commands) + " (dmesg says what the driver wants)"
    fixed = [word for feature, word in ethtool.WORDS.items() if _is_fixed_on(interface, feature)]
    driver = ethtool.driver(interface.name)
    # virtio_net may refuse native XDP only because its receive checksum offload is fixed. The feature flags do not show
    # whether this is the reason, because virtio_net always reports the receive checksum offload as fixed.
    if driver == "virtio_net" or {"lro", "rx-gro-hw"} & set(fixed):
        return (
            "the receive offload is fixed in this machine: have its hypervisor offer VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "
            "or no guest offloads (guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off); "
            "TC works without"
        )
    return f"the driver ({driver or 'unknown'}) may have no XDP: dmesg says more; TC works without"


def set_back(now: state.State, keep: int = 0) -> None:
    """Undo all changes except the first ``keep`` changes, in reverse order.

    If someone else has changed a setting after the loader changed it, the setting stays as it is.

    If a change cannot be undone, prints a message to stderr.
    """
    while len(now.changes) > keep:
        change = now.changes.pop()
        interface = interfaces.by_index(change.ifindex)
        if interface is None:
            continue
        try:
            if _value(interface, change.setting) == change.after:
                _set(interface, change.setting, change.before)
        except OSError as error:
            text = f"{change.setting} of {interface.name}: cannot be set back to {change.before}: {error.strerror}"
            print(f"xdp-gossip: {text}", file=sys.stderr)


def _warns(interface: interfaces.Interface) -> Iterator[Trap]:
    """Yield an obstacle for each offload that makes generic XDP taint the kernel.

    Generic XDP disables LRO and rx-gro-hw on the interface and on the interfaces below it. If such an offload cannot be
    switched off ("fixed"), the kernel logs a warning and taints itself.
    """
    for each in (interface, *_below(interface)):
        for feature in (ethtool.LRO, ethtool.GRO_HW):
            if _is_fixed_on(each, feature):
                yield Trap(
                    f"{ethtool.WORDS[feature]} of {each.name} is on and fixed: attaching generic XDP would make the "
                    "kernel warn and taint itself",
                    "nothing on this machine: TC works without, or have its hypervisor offer no such offload",
                    True,
                    each,
                )


#: Kinds of interfaces that receive frames from another interface's receive handler, after the stack has removed VLAN
#: tags.
_HANDED_UP = ("bridge", "macvlan", "macvtap", "ipvlan", "bond", "team")


def _hidden_tags(interface: interfaces.Interface, *, bars: bool) -> Iterator[Trap]:
    """Yield an obstacle if the device removes VLAN tags from frames.

    Without the tag, XDP would treat frames of other VLANs as frames for the agent.
    """
    if bars and interface.kind in _HANDED_UP:
        text = (
            f"{interface.name} is a {interface.kind}: the kernel takes VLAN tags out of the frames that it hands up to "
            "it, so generic XDP would take frames of other VLANs for the agent's, whatever rx-vlan-offload is"
        )
        yield Trap(text, "nothing: TC understands such tags", True, interface)
        return
    # A VLAN interface receives only frames whose tag was checked already.
    group = (interface, *_below(interface, past_vlan=False))
    for each in group:
        tags = _features(each).get(ethtool.RX_VLAN)
        if tags is None or not tags.on:
            continue
        text = f"{each.name} takes the VLAN tags out of the frames it receives (rx-vlan-offload)"
        if bars:
            text += ": generic XDP would take frames of other VLANs for the agent's"
        else:
            text += ": frames of other VLANs that are addressed to the agent are taken for its own"
        remedy = f"ethtool -K {each.name} rxvlan off"
        if each.kind == "veth":
            remedy += ", and on the other side: ethtool -K PEER txvlan off"
        if tags.fixed:
            yield Trap(text, "it is fixed: TC understands such tags (protocol: TC)", bars, each)
        else:
            yield Trap(text, remedy, bars, each, ethtool.RX_VLAN, 0)
    peer = interfaces.by_index(interface.below) if interface.kind == "veth" and interface.below else None
    tags = _features(peer).get(ethtool.TX_VLAN) if peer is not None else None
    if bars and peer is not None and tags is not None and tags.on and not tags.fixed:
        text = f"{peer.name}, the peer of {interface.name}, leaves VLAN tags beside the frame (tx-vlan-offload)"
        yield Trap(text, f"ethtool -K {peer.name} txvlan off", True, peer, ethtool.TX_VLAN, 0)


def _few_queues(interface: interfaces.Interface) -> Iterator[Trap]:
    """Yield an obstacle if virtio_net has fewer unused queues than this host has processors.

    With too few unused queues, the driver takes a lock to send each frame that XDP redirects.
    """
    queues, processors = _channels(interface), os.cpu_count() or 1
    if queues is None or ethtool.driver(interface.name) != "virtio_net":
        return
    spare = queues.most - processors
    if spare >= 1 and queues.combined > spare:
        yield Trap(
            f"{interface.name} uses {queues.combined} of {queues.most} queues: with one for each of {processors} "
            "processors to spare, XDP would send without a lock",
            f"ethtool -L {interface.name} combined {spare}",
            False,
            interface,
            _CHANNELS,
            spare,
        )


def _below(interface: interfaces.Interface, *, past_vlan: bool = True) -> list[interfaces.Interface]:
    """All interfaces below ``interface``, at all levels: members of a bond, and the base of a VLAN or macvlan."""
    every = {each.index: each for each in interfaces.every()}
    found: dict[int, interfaces.Interface] = {}
    waiting = [interface]
    while waiting:
        upper = waiting.pop()
        if upper.kind == "vlan" and not past_vlan:
            continue
        lower = [each for each in every.values() if each.master == upper.index]
        if upper.kind != "veth" and upper.below in every:
            lower.append(every[upper.below])
        for each in lower:
            if each.index not in found and each.index != interface.index:
                found[each.index] = each
                waiting.append(each)
    return list(found.values())


def _is_fixed_on(interface: interfaces.Interface, feature: str) -> bool:
    found = _features(interface).get(feature)
    return found is not None and found.on and found.fixed


def _features(interface: interfaces.Interface) -> dict[str, ethtool.Feature]:
    try:
        return ethtool.features(interface.name)
    except OSError:
        return {}


def _channels(interface: interfaces.Interface) -> ethtool.Channels | None:
    try:
        return ethtool.channels(interface.name)
    except OSError:
        return None


def _change(settings: Settings, trap: Trap, now: state.State) -> bool:
    """Change the interface setting that causes an obstacle.

    The state records the change first, because the change outlives this process.

    Returns False if the change is not possible.
    """
    before = _value(trap.interface, trap.setting)
    change = state.Change(trap.interface.index, trap.setting, before, trap.value)
    now.changes.append(change)
    state.write(Path(settings.directory), now)
    try:
        _set(trap.interface, trap.setting, trap.value)
    except OSError as error:
        now.changes.remove(change)
        if error.errno in (errno.EPERM, errno.EACCES):
            raise Refused(f"{trap.remedy}: {error.strerror}", "the loader needs CAP_NET_ADMIN") from None
        return False
    return True


def _value(interface: interfaces.Interface, setting: str) -> int:
    if setting == _CHANNELS:
        found = ethtool.channels(interface.name)
        return found.combined if found is not None else 0
    return int(ethtool.features(interface.name)[setting].on)


def _set(interface: interfaces.Interface, setting: str, value: int) -> None:
    if setting == _CHANNELS:
        ethtool.set_channels(interface.name, value)
    else:
        ethtool.set_feature(interface.name, setting, bool(value))
