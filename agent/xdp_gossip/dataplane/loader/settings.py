# SPDX-License-Identifier: MIT
"""Determines the settings of the data plane (modes, interface, sizes and owner) from the configuration and the command
line.
"""

from __future__ import annotations

import ipaddress
import pwd
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...config.settings import DataPlaneConfig
from ...core.types import Address
from .. import asking, headers, interfaces
from . import state
from .errors import LoaderError

if TYPE_CHECKING:
    from ...config.agent import AgentConfig

DEFAULT_DIRECTORY = DataPlaneConfig.directory
DEFAULT_USER = "xdp-gossip"

#: The names of the modes in status, API and role, best first.
NATIVE, GENERIC, TC = "XDP (native)", "XDP (generic)", "TC"
#: Value of ``protocol`` -> allowed modes. For other values, no data plane is loaded.
MODES = {"auto": (NATIVE, GENERIC, TC), "XDP": (NATIVE, GENERIC), "TC": (TC,)}


#: Placeholder for an interface that does not exist yet.
NOWHERE = interfaces.Interface(0, "", "", 0, up=False)


class NoUser(LoaderError):
    """The user who should own the maps does not exist."""


class Absent(LoaderError):
    """The interface or its address does not exist yet, but may appear later."""


@dataclass(frozen=True)
class Settings:
    """The settings of the data plane for ``node``.

    ``amount``: number of copies of a rumor. ``wide``: number of copies of a metadata rumor or a leave. ``nodes``:
    maximum entries of the node map. ``asked``: the configured interface name, "" for the interface with node.addr.
    ``prepare``: whether the loader may change the interface's settings. ``owners``: indexes of the interfaces that have
    the node's address.
    """

    directory: str
    node: Address
    interface: interfaces.Interface
    modes: tuple[str, ...]
    protocol: str
    nodes: int
    amount: int
    wide: int
    user: str
    uid: int
    asked: str = ""
    prepare: bool = False
    owners: tuple[int, ...] = ()


def directory(config: AgentConfig | None, named: str | None) -> str:
    """Return the state directory: ``--directory``, or else the configured directory, or else the default."""
    section = getattr(config, "dataplane", None)
    return named or getattr(section, "directory", "") or DEFAULT_DIRECTORY


def wanted(config: AgentConfig, *, interface: str = "", named_directory: str = "", user: str = "") -> Settings:
    """The settings from ``config``. The keyword arguments come from the command line and take precedence.

    Raises ``LoaderError``, and ``OSError`` if the kernel does not answer.
    """
    _user(user or DEFAULT_USER)
    found = unplaced(config, interface=interface, named_directory=named_directory, user=user)
    # Prefer the agent's destinations: the configured seeds may be down, or may be host names that only a resolver
    # knows.
    toward = asking.Request(Path(found.directory)).toward() or [seed.ip for seed in config.seeds]
    placed, owners = _interface(config.node.addr, found.asked, _Aim(toward, found.uid, _now_on(found.directory)))
    return replace(found, interface=placed, owners=owners)


def unplaced(config: AgentConfig, *, interface: str = "", named_directory: str = "", user: str = "") -> Settings:
    """Like :func:`wanted`, but with the placeholder ``NOWHERE`` as interface, and root in place of a missing user."""
    copies = headers.constants()["XG_COPIES"]
    name, uid = owner(user)
    return Settings(
        directory=directory(config, named_directory),
        node=config.node.address,
        interface=NOWHERE,
        modes=MODES[config.protocol],
        protocol=config.protocol,
        nodes=config.limits.nodes,
        amount=min(config.amount, copies),
        wide=min(copies, 3 * config.amount),
        user=name,
        uid=uid,
        asked=asked(config, interface),
        prepare=config.dataplane.prepare_interface,
    )


def asked(config: AgentConfig, named: str = "") -> str:
    """Return the interface name from ``--interface``, or else from the configuration; "" means the interface with
    node.addr.
    """
    return named or getattr(getattr(config, "dataplane", None), "interface", "")


def owner(name: str) -> tuple[str, int]:
    """Name and id of the user who owns the maps.

    Returns root if the user ``name`` is missing, because then no agent is installed.
    """
    try:
        found = _user(name or DEFAULT_USER)
    except NoUser:
        return "root", 0
    return found.pw_name, found.pw_uid


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise NoUser(
            f"user {name}: expected the agent's user, found none", "create it, or name another user with --user"
        ) from None


@dataclass(frozen=True)
class _Aim:
    """Input for the choice of an interface. ``toward``: destinations of the node's packets.

    ``uid``: id of the user who sends the node's packets. ``now``: index of the loaded data plane's interface; 0 if
    none is loaded.
    """

    toward: Sequence[str]
    uid: int
    now: int


def _now_on(directory: str) -> int:
    """The index of the loaded data plane's interface; 0 if none is loaded."""
    try:
        old = state.read(Path(directory))
    except LoaderError:  # ``up`` reports this error
        return 0
    return old.ifindex if old is not None and old.mode else 0


def _interface(ip: str, name: str, aim: _Aim) -> tuple[interfaces.Interface, tuple[int, ...]]:
    """Find the interface on which rumors arrive.

    Returns the interface, and the indexes of all interfaces that have the address ``ip``.

    The result is the interface ``name``; if ``name`` is "", the interface that has node.addr. If that interface is
    loopback, a dummy or a VRF, the result is the interface that the routes to most destinations use. If no destination
    is known, the result is the interface of the default route. Raises ``Absent``, ``LoaderError``.
    """
    every = {found.index: found for found in interfaces.every()}
    owners = tuple(index for index in interfaces.owners(ip) if index in every)
    if name:
        chosen = next((found for found in every.values() if found.name == name), None)
        if chosen is None:
            raise Absent(
                f"interface {name}: expected one of {', '.join(sorted(i.name for i in every.values()))}, found none",
                "correct dataplane.interface, or leave it empty to use the interface that has node.addr",
            )
    else:
        if not owners:
            raise Absent(
                f"node.addr {ip}: no interface has this address",
                "add the address to an interface, or set dataplane.interface to the one on which its packets arrive",
            )
        chosen = min((every[index] for index in owners), key=lambda found: (not found.up, found.holds))
        if chosen.holds:
            chosen = _by_route(ip, chosen, aim, every)
    if chosen.holds:
        raise LoaderError(
            f"interface {chosen.name} ({chosen.kind or 'loopback'}): no packet from a network arrives on it",
            "set dataplane.interface to the interface on which packets for node.addr arrive",
        )
    if not chosen.up:
        raise Absent(f"interface {chosen.name} is down", f"ip link set {chosen.name} up")
    return chosen, owners


def _by_route(
    ip: str, holder: interfaces.Interface, aim: _Aim, every: dict[int, interfaces.Interface]
) -> interfaces.Interface:
    """Return the interface that the routes from ``ip`` to most destinations use.

    A loaded data plane keeps its interface while the route to at least one destination uses that interface. Raises
    ``Absent``, ``LoaderError``.
    """
    try:
        found = Counter(interfaces.ways_from(ip, holder, aim.toward, every.get, aim.uid))
    except OSError as error:
        raise Absent(f"node.addr {ip}: cannot read the routes from this address: {error.strerror}", "") from None
    if found:
        return every[aim.now if aim.now in found else found.most_common(1)[0][0]]
    if ipaddress.ip_address(ip).is_loopback:
        raise LoaderError(
            f"node.addr {ip} is on the loopback interface: its packets never touch a network",
            "use an address of a network interface; on loopback the agent uses UDP",
        )
    raise Absent(
        f"node.addr {ip}: no route leads from it to {'the members' if aim.toward else 'anywhere'}, and no packet from "
        f"a network arrives on its interface, {holder.name}",
        "set dataplane.interface to the interface on which packets for node.addr arrive, or add the route",
    )
