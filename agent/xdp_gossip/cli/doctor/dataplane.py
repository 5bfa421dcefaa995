# SPDX-License-Identifier: MIT
"""Checks what prevents the kernel data plane from being up, or from using a better mode."""

from __future__ import annotations

import ipaddress
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...dataplane import interfaces, libbpf, unprivileged
from ...dataplane.headers import HeaderError
from ...dataplane.loader import attach, proof, refusals, settings, state, status, traps
from ...dataplane.loader.errors import LoaderError
from ...dataplane.loader.stock import Stock
from .finding import Finding, Subject
from .look import Look

if TYPE_CHECKING:
    from ...config.agent import AgentConfig

_UP = "xdp-gossip dataplane up (systemctl reload-or-restart xdp-gossip-dataplane)"
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_PROCESS = Path("/proc/self/status")
_NEIGHBOURS = Path("/proc/sys/net")
#: Bits of the capabilities that the loader needs (linux/capability.h).
_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
#: Data plane counters that indicate a problem -> remedy.
_TROUBLE = {
    "drop_bad_mac": "is the secret the same everywhere?",
    "drop_unknown_key": "add the key as staged everywhere before using it",
    "drop_foreign_cluster": "is `cluster` the same everywhere?",
    "drop_foreign_version": "do all agents speak this wire version?",
    "ask_time": "are the clocks synchronised?",
    "ask_full": "raise limits.nodes, then xdp-gossip dataplane up",
    "drop_odd": "somebody sends fragments or IP options to the agent's port",
    "drop_replayed": "somebody sends recordings of packets",
    "drop_probe_replayed": "somebody sends recordings of edge probes",
    "drop_probe_flood": "one node asks more often than any agent does: is it another program with the secret?",
    "drop_probe_source": "somebody sends recordings of edge probes, with a forged source",
    "drop_edge_full": "the kernel has no memory for the maps askers and acks: dmesg",
    "answer_failed": "the active key is not in the kernel, or the interface refuses answers: restart the agent, dmesg",
    "drop_direct_flood": "one node sends more than any agent does: is it another program with the secret?",
    "drop_rumor_flood": "one node sends more rumors than any agent does: is it another program with the secret?",
    "ask_limited": "somebody sends many rumors that only the agent can judge: xdp-gossip dataplane status",
    "news_lost": "the agent does not keep up: is it starved of processor time?",
    "relay_failed": "the interface refuses copies: ip -s link, dmesg",
    "fanout_failed": "the interface refuses copies: ip -s link, dmesg",
}


_SAYS = Subject(
    "dataplane",
    unreadable="error",
    unwanted="warning",
    impossible="warning error",
    library="warning error",
    container="warning",
    privileges="warning error",
    down="warning error",
    lesser="warning error",
    waiting="warning error",
    told="warning",
    counted="warning",
    broken="error",
    vanishing="warning",
    dropped="warning",
    differs="warning error",
    interface="warning",
    neighbours="error",
    unused="error",
)
_KERNEL = Subject("kernel", refuses="warning error", rejects="warning", lockdown="warning", capability="warning")


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the data plane; none if the configuration, which selects the data plane, is invalid."""
    if look.sound is not None:
        yield from of(look.sound, look.status, look.nodes)


def of(config: AgentConfig, agent: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield all findings about the data plane.

    ``agent`` is the status that the running agent reports; ``nodes`` are the nodes in the agent's node list.
    """
    directory = Path(settings.directory(config, None))
    try:
        found = status.report(directory)
    except LoaderError as error:
        yield _SAYS("unreadable", error.reason, error.remedy)
        return
    if config.protocol not in settings.MODES or config.wire != "native":
        if found.get("mode"):
            text = f"{found['mode']} is up on {found['interface']}, but the configuration wants none"
            yield _SAYS("unwanted", text, "xdp-gossip dataplane down")
        return
    # With protocol auto, a host without a data plane can still be a member, so findings about its data plane are only
    # warnings.
    level = "warning" if config.protocol == "auto" else "error"
    wanted = None
    # If the user of the agent does not exist, try again with the user root, so that the interface is checked
    # nevertheless.
    for user in (found.get("user", ""), "root"):
        try:
            wanted = settings.wanted(config, user=user)
            break
        except settings.NoUser as error:
            yield _SAYS("impossible", error.reason, error.remedy, level=level)
        except LoaderError as error:
            yield _SAYS("impossible", error.reason, error.remedy, level=level)
            break
        except (OSError, HeaderError) as error:
            yield _SAYS("impossible", str(error), "reinstall the release", level=level)
            break
    stock = _stock()
    yield from _host(level, stock)
    yield from _origin(found, stock)
    yield from kernel(found, wanted, level, stock)
    yield from loaded(found, level)
    yield from carries(directory, found)
    if wanted is not None:
        yield from _differences(found, wanted) if found.get("mode") else prospects(wanted)
        yield from neighbours(wanted.interface, nodes)
    if agent is not None and found["up"]:
        yield from _use(found, agent)


def _stock() -> Stock | None:
    """Return the compiled programs that ``up`` would use; None if the BPF sources cannot be read."""
    try:
        return Stock()
    except HeaderError:
        return None  # another check reports the error


def _origin(found: Mapping[str, Any], stock: Stock | None) -> Iterator[Finding]:
    """Yield findings on where the programs come from: a program container or this host's compiler."""
    if stock is not None and stock.unfit is not None:
        yield _SAYS("container", stock.unfit.reason, stock.unfit.remedy)
    if found.get("mode"):
        yield _SAYS.ok(f"the programs come from {status.origin(found)}")


def loaded(found: Mapping[str, Any], level: str) -> Iterator[Finding]:
    """Yield findings about the state that the loader stored: the mode, the reasons why a better mode is not used, and
    the counters.
    """
    if found["up"]:
        yield _SAYS.ok(f"{found['mode']} on {found['interface']}")
        text = f"{found['mode']} comes before netfilter: no rule of this host's own applies to rumors"
        yield _SAYS.ok(f"{text}; dataplane.allow says who may speak")
    else:
        yield _SAYS("down", found["reason"], _UP, level=level)
    for refusal in found["reasons"]:
        text = f"not {refusal['mode'] or 'up'}: {refusal['reason']}"
        yield _SAYS("lesser", text, f"{refusal['remedy']}; then {_UP}", level="warning" if found["up"] else level)
    for note in found.get("notes", ()):
        yield _SAYS("told", note, "run doctor as root; watch xdp-gossip dataplane status")
    if found["up"] and found.get("waiting"):
        remedy = f"nothing, if that comes by itself; {_UP}"
        yield _SAYS("waiting", f"waiting: {found['waiting']}", remedy, level=level)
    for name, remedy in _TROUBLE.items():
        count = found.get("counters", {}).get(name)
        if count:
            yield _SAYS("counted", f"{name}: {count} packets", remedy)


def kernel(
    found: Mapping[str, Any], wanted: settings.Settings | None, level: str, stock: Stock | None
) -> Iterator[Finding]:
    """Yield findings about which BPF programs this kernel accepts.

    The findings come from the loader's records. If no data plane is up and doctor runs as root, doctor loads all
    programs as a trial. The kernel's version alone does not tell which programs the kernel accepts, because that also
    depends on the compiler and on the distribution's patches.
    """
    rejected = {name: (each["reason"], each["remedy"]) for name, each in found.get("rejected", {}).items()}
    if found["up"]:
        text = f"{found['compiler'] or platform.release()}: accepts the programs of {found['mode']}"
    elif wanted is not None and os.geteuid() == 0 and stock is not None and not stock.lacking():
        try:
            tried = proof.trial(wanted, stock)
        except (LoaderError, HeaderError) as error:
            remedy = getattr(error, "remedy", "") or "reinstall the release"
            yield _KERNEL("refuses", str(error), remedy, level=level)
            return
        rejected = {name: (each.reason, each.remedy) for name, each in tried.items() if each is not None}
        text = f"{stock.toolchain}: accepts {len(tried) - len(rejected)} of {len(tried)} programs"
    elif not rejected:
        text = f"{platform.release()}: which programs it accepts is known once they are loaded; or run doctor as root"
        yield _KERNEL.ok(text)
        return
    else:
        text = ""
    if text and not (rejected and not found["up"]):
        yield _KERNEL.ok(text)
    for name, (reason, remedy) in rejected.items():
        lost = proof.lost_modes(name)
        if found["up"] and not lost:
            continue  # the loader's notes already report the rejected program
        yield _KERNEL("rejects", f"{reason}; without it there is no {' or '.join(lost) or 'self-test'}", remedy)


def carries(directory: Path, found: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings on whether the loaded data plane delivers packets, whether copies of packets are lost, and from
    which sources it drops packets. Only root can test whether packets are delivered.
    """
    if found["up"] and os.geteuid() == 0:
        try:
            now = state.read(directory)
            for refused in proof.again(directory, now) if now is not None else ():
                yield _SAYS("broken", f"{found['mode']} does not carry: {refused.reason}", refused.remedy)
        except (OSError, LoaderError) as error:
            yield _SAYS("broken", f"the self-test cannot be repeated: {error}", _UP)
    counters = found.get("counters") or {}
    lost, missing = counters.get("copy_lost", 0), found.get("copies_missing", 0)
    if lost or missing:
        text = f"copies vanish: of {counters['copy_due']} copies asked for, {lost} were not sent by the driver"
        text += f" and {missing} never came to the program at the way out" if missing else ""
        yield _SAYS("vanishing", text, _vanishing(found["interface"]))
    for source in found.get("refusals", ()):
        yield _SAYS("dropped", refusals.line(source), _TROUBLE.get(source["verdict"], "look at that host"))


def _vanishing(name: str) -> str:
    try:
        interface = interfaces.by_name(name)
    except OSError:
        interface = None
    if interface is not None and interface.kind == "veth":
        return f"on the peer of {name}, which is on the host of the container: ethtool -K PEER gro on"
    return f"ip -s link show {name}; ethtool -S {name}; dmesg; fewer rumors at a time"


def _differences(found: Mapping[str, Any], wanted: settings.Settings) -> Iterator[Finding]:
    """Yield findings about differences between the loaded data plane and the configuration."""
    if found["mode"] not in wanted.modes:
        text = f"{found['mode']} is up, but protocol is {wanted.protocol}"
        yield _SAYS("differs", text, _UP, level="error")
    pairs = {
        "interface": (found["interface"], wanted.interface.name),
        "limits.nodes": (found["nodes"], wanted.nodes),
        "amount": (found["amount"], wanted.amount),
        "user": (found["user"], wanted.user),
    }
    for name, (has, should) in pairs.items():
        if has != should:
            yield _SAYS("differs", f"{name}: up with {has}, configured is {should}", _UP)


def prospects(wanted: settings.Settings) -> Iterator[Finding]:
    """Yield findings about what would prevent the best mode if a data plane were loaded now."""
    name = wanted.interface.name
    try:
        who = attach.incumbent(wanted.interface)
    except OSError as error:
        yield _SAYS("interface", f"{name}: {error.strerror}", "run doctor as root")
        return
    if who and wanted.modes != (settings.TC,):
        yield _SAYS("interface", f"XDP is not available: {who}", f"keep it, or detach it: ip link show {name}")
    if not wanted.interface.ethernet:
        try:
            traps.refuse_other_than_ethernet(wanted.interface)
        except LoaderError as error:
            yield _SAYS("interface", error.reason, error.remedy)
        return
    if wanted.interface.mtu > max(1500, traps.LARGE_MTU) and settings.NATIVE in wanted.modes:
        text = f"the MTU of {name} is {wanted.interface.mtu}: many drivers refuse native XDP above {traps.LARGE_MTU}"
        yield _SAYS("interface", text, f"ip link set {name} mtu 1500")
    for mode in wanted.modes:
        for trap in traps.survey(wanted.interface, mode):
            yield _SAYS("interface", f"{mode}: {trap.reason}", trap.remedy)
    if wanted.interface.kind == "veth" and settings.NATIVE in wanted.modes:
        text = f"{name} is a veth: native XDP needs GRO (or XDP) on its peer"
        yield _SAYS("interface", text, "on the host of the container: ethtool -K PEER gro on")


def _host(level: str, stock: Stock | None) -> Iterator[Finding]:
    """Yield findings about the libraries and privileges on this host."""
    yield from privilege()
    if "[confidentiality]" in _read(_LOCKDOWN):
        text = "locked down for confidentiality: the kernel may refuse BPF programs"
        yield _KERNEL("lockdown", text, "boot with lockdown=integrity, or without Secure Boot's lockdown")
    for text, remedy in stock.lacking() if stock is not None else ():
        yield _SAYS("library", text, remedy, level=level)
    try:
        libbpf.library()
    except OSError as error:
        remedy = "install libbpf1 (Debian, Ubuntu) or libbpf (Fedora, RHEL)"
        yield _SAYS("library", str(error), remedy, level=level)
    if os.geteuid() == 0:
        yield from capabilities(level)


def capabilities(level: str) -> Iterator[Finding]:
    """Yield a finding about the capabilities that root lacks, for example in a container."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", _read(_PROCESS), re.MULTILINE)
    held = int(effective[1], 16) if effective else 0
    lacking = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if lacking:
        remedy = "give them to the container, or set protocol: UDP"
        yield _SAYS("privileges", f"root lacks {', '.join(lacking)}, which the loader needs", remedy, level=level)


def privilege() -> Iterator[Finding]:
    """Yield a finding on whether this kernel lets the unprivileged agent use the BPF maps."""
    try:
        refused = unprivileged.maps_refused()
    except libbpf.LibraryMissing:
        return  # another check reports the missing library
    except OSError as error:
        yield _KERNEL("capability", str(error.strerror), "run doctor as root")
        return
    if refused:
        remedy = "a drop-in for xdp-gossip.service: AmbientCapabilities=CAP_BPF, CapabilityBoundingSet=CAP_BPF"
        text = f"{platform.release()} requires CAP_BPF to use BPF maps: the agent needs it"
        yield _KERNEL("capability", text, remedy)


def neighbours(interface: interfaces.Interface, nodes: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Check whether the kernel's neighbour table has room for all members in the interface's own networks."""
    try:
        networks = interfaces.networks(interface.index)
    except OSError:
        return
    for family, version in (("ipv4", 4), ("ipv6", 6)):
        own = [network for network in networks if network.version == version]
        addresses = {ipaddress.ip_address(node["addr"]) for node in nodes if not node["local"]}
        near = sum(1 for address in addresses if any(address in network for network in own))
        limit = _read(_NEIGHBOURS / family / "neigh/default/gc_thresh3")
        if limit.isdigit() and near > int(limit):
            text = f"{near} members are in the networks of {interface.name}, the table of neighbours holds {limit}"
            remedy = f"sysctl -w net.{family}.neigh.default.gc_thresh3={4 * near}, gc_thresh2 half of it"
            yield _SAYS("neighbours", text, remedy)


def _use(found: Mapping[str, Any], agent: Mapping[str, Any]) -> Iterator[Finding]:
    """Check whether the agent uses the data plane that is up."""
    mode, reason = agent.get("mode"), agent.get("mode_reason")
    if mode != found["mode"]:
        text = f"{found['mode']} is up, but the agent uses {mode} ({reason or 'no reason given'})"
        if str(agent.get("protocol")) not in settings.MODES:
            remedy = f"systemctl restart xdp-gossip: it runs with protocol {agent.get('protocol')} still"
        else:
            remedy = "it takes what carries by itself, now after systemctl reload xdp-gossip; journalctl -u xdp-gossip"
        yield _SAYS("unused", text, remedy)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
