# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets up the lab's network: a bridge with an address, and guard routes so that no packet leaves the machine."""

from __future__ import annotations

import ipaddress
import json
import time
from pathlib import Path
from typing import Any

from .config import Config, Host
from .system import LabError, run

BENCHMARK_NET = ipaddress.IPv4Network("198.18.0.0/15")
"""Network that RFC 2544 reserves for tests of network devices."""
GUARD_METRIC = 4_000_000
"""Metric of the lab's guard routes. It is so high that every other route has precedence, and identifies the routes."""
# Protocol of the guard routes. systemd-networkd removes foreign routes, except those of the protocol `kernel`.
GUARD_PROTOCOL = "kernel"


def _query(*arguments: str) -> list[dict[str, Any]]:
    done = run(["ip", "-json", *arguments], check=False)
    if done.returncode != 0 or not done.stdout.strip():
        return []
    return [entry for entry in json.loads(done.stdout) if entry]


def interface(name: str) -> dict[str, Any] | None:
    """Return the JSON of `ip link show` for the interface, or None if there is no such interface."""
    found = _query("-details", "link", "show", "dev", name)
    return found[0] if found else None


def guards(config: Config) -> list[str]:
    """Return the networks that get a guard route, an `unreachable` route with a higher metric than the bridge's own
    route.
    """
    network = ipaddress.IPv4Network(config.network)
    inside = network.subnet_of(BENCHMARK_NET)
    return [str(BENCHMARK_NET if inside else network), *([config.network6] if has_ipv6() else [])]


def has_ipv6() -> bool:
    """Return whether IPv6 is enabled on this machine."""
    try:
        return Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text(encoding="ascii").strip() == "0"
    except FileNotFoundError:
        return False


def is_ours(config: Config, found: dict[str, Any]) -> bool:
    """Return whether the interface `found` is the bridge that this lab created."""
    return found.get("linkinfo", {}).get("info_kind") == "bridge" and found.get("address") == config.bridge_mac


def _family(network: str) -> str:
    return "-6" if ":" in network else "-4"


def _guard_exists(network: str) -> bool:
    found = _query(_family(network), "route", "show", "type", "unreachable", "exact", network)
    return any(int(route.get("metric", 0)) == GUARD_METRIC for route in found)


def missing(config: Config) -> list[str]:
    """Return one line for each guard route, bridge and address that `ensure` would create.

    Raises LabError if the bridge's name or a network of the lab is already in use.
    """
    found = interface(config.bridge)
    if found is not None and not is_ours(config, found):
        raise LabError(f"lab_bridge: {config.bridge} exists and is not this lab's; choose another name")
    for network in (config.network, config.network6):
        for route in _query(_family(network), "route", "show", "root", network):
            if route.get("dev") not in (None, config.bridge, "lo"):
                raise LabError(
                    f"{network}: already routed to {route['dev']}; choose another lab_network or lab_network6"
                )
    steps = [f"guard {network}" for network in guards(config) if not _guard_exists(network)]
    if found is None or "UP" not in found["flags"]:
        return [*steps, f"bridge {config.bridge}"]
    held = {
        f"{entry['local']}/{entry['prefixlen']}"
        for item in _query("address", "show", "dev", config.bridge)
        for entry in item.get("addr_info", [])
    }
    wanted = [config.gateway, *([config.gateway6] if has_ipv6() else [])]
    return [*steps, *(f"address {address}" for address in wanted if address not in held)]


def ensure(config: Config) -> list[str]:
    """Create missing guard routes, the bridge and its addresses.

    Returns one line of text for each change that the function made.
    """
    steps = missing(config)
    if not steps:
        return []
    # Create the guard routes first, so that no packet of the lab can ever take the default route.
    for network in guards(config):
        run(
            [
                "ip",
                _family(network),
                "route",
                "replace",
                "unreachable",
                network,
                "metric",
                str(GUARD_METRIC),
                "proto",
                GUARD_PROTOCOL,
            ]
        )
    if interface(config.bridge) is None:
        run(
            [
                "ip",
                "link",
                "add",
                "name",
                config.bridge,
                "address",
                config.bridge_mac,
                "type",
                "bridge",
                "forward_delay",
                "0",
                "stp_state",
                "0",
            ]
        )
    run(["ip", "link", "set", "dev", config.bridge, "up"])
    run(["ip", "address", "replace", config.gateway, "dev", config.bridge])
    if has_ipv6():
        run(["ip", "address", "replace", config.gateway6, "dev", config.bridge, "nodad"])
    return steps


def attach(config: Config, host: Host, timeout: float = 5.0) -> bool:
    """Attach the machine's end of a running host's veth to the bridge, bring that end up, and enable GRO.

    Return whether the function changed anything. GRO enables NAPI on the machine's end. Without NAPI, the machine's end
    drops every frame that XDP redirects out of the host's end. Raises LabError if the interface does not appear within
    `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (found := interface(host.interface)) is None:
        if time.monotonic() >= deadline:
            raise LabError(
                f"{host.name}: its interface {host.interface} did not appear in {timeout:g} s, see {host.log}"
            )
        time.sleep(0.05)
    changed = False
    if found.get("master") != config.bridge or "UP" not in found["flags"]:
        run(["ip", "link", "set", "dev", host.interface, "master", config.bridge, "up"])
        changed = True
    if "generic-receive-offload: on" not in run(["ethtool", "--show-features", host.interface]).stdout:
        run(["ethtool", "--features", host.interface, "gro", "on"])
        changed = True
    return changed


def describe(host: Host) -> str:
    """Describe the state of the machine's end of the host's veth, for an error message."""
    found = interface(host.interface)
    if found is None:
        return f"its interface {host.interface} is gone"
    return f"its interface {host.interface} is {found.get('operstate')} on bridge {found.get('master')}"


def detach(config: Config, host: Host) -> bool:
    """Delete the machine's end of a host's veth if a crash has left this interface. Return whether the interface
    existed.

    The function does not delete an interface on another bridge, because such an interface does not belong to the lab.
    """
    found = interface(host.interface)
    if found is None or found.get("master") not in (None, config.bridge):
        return False
    # The command may fail, because the interface may disappear at the same time, with the host's network namespace.
    run(["ip", "link", "delete", "dev", host.interface], check=False)
    return True


def remove(config: Config) -> bool:
    """Delete the bridge, and each guard route that no other lab needs; return whether anything was deleted."""
    changed = False
    found = interface(config.bridge)
    if found is not None and is_ours(config, found):
        run(["ip", "link", "delete", "dev", config.bridge])
        changed = True
    for network in guards(config):
        others = [
            route
            for route in _query(_family(network), "route", "show", "root", network)
            if route.get("type") != "unreachable" and route.get("dev") is not None
        ]
        if not others and _guard_exists(network):
            run(
                [
                    "ip",
                    _family(network),
                    "route",
                    "delete",
                    "unreachable",
                    network,
                    "metric",
                    str(GUARD_METRIC),
                ]
            )
            changed = True
    return changed
