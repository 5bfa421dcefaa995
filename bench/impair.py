# SPDX-License-Identifier: MIT
"""Hosts on one bridge whose network can be impaired, and counters of the packets that the hosts send.

Each host is a network namespace, in which one agent of each compared system runs. The rules for loss are nftables rules
in the bridge's namespace, so they apply to the packets of all systems alike. They apply after the programs of a host's
data plane have sent a packet, and before these programs receive one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence

from . import netns, packets
from .fleet import neighbour_room, port_of, wire
from .netns import BenchError, run
from .serf import PORT as SERF_PORT

PREFIX = "xgf"
HUB = f"{PREFIX}-hub"
_TABLE = f"bridge {PREFIX}"
#: Up to this number of hosts, the kernel's default limits on neighbour entries suffice.
_FEW = 5
# @th,88,8 is the byte after 8 bytes of UDP header and 3 bytes of the packet: the type (docs/wire.md). Edge probes and
# their acknowledgements have the types 8 and 9.
_RULES = f"""
table {_TABLE} {{
  counter gossip {{}}
  counter edges {{}}
  counter serf {{}}
  chain count {{
    type filter hook prerouting priority -300; policy accept;
    udp dport {packets.PORT} counter name gossip
    udp dport {packets.PORT} @th,88,8 {{ 8, 9 }} counter name edges
    udp dport {SERF_PORT} counter name serf
    tcp dport {SERF_PORT} counter name serf
    tcp sport {SERF_PORT} counter name serf
  }}
  chain faults {{
    type filter hook forward priority 0; policy accept;
  }}
}}
"""


def host(number: int) -> str:
    """Name of the network namespace of host ``number``."""
    return f"{PREFIX}{number}"


def outgoing(number: int, percent: int = 100) -> str:
    """The rule that drops ``percent`` of the packets that host ``number`` sends."""
    return f'iifname "{port_of(number, PREFIX)}" {_share(percent)}drop'


def incoming(number: int, percent: int = 100) -> str:
    """The rule that drops ``percent`` of the packets to host ``number``."""
    return f'oifname "{port_of(number, PREFIX)}" {_share(percent)}drop'


def between(one: int, other: int) -> list[str]:
    """The rules that drop all packets between two hosts."""
    return [
        f'iifname "{port_of(a, PREFIX)}" oifname "{port_of(b, PREFIX)}" drop' for a, b in ((one, other), (other, one))
    ]


def _share(percent: int) -> str:
    return "" if percent == 100 else f"numgen random mod 100 < {percent} "


def ruleset(rules: Sequence[str]) -> str:
    """The nft(8) script that replaces all rules for loss with ``rules`` in one transaction."""
    return "\n".join((f"flush chain {_TABLE} faults", *(f"add rule {_TABLE} faults {rule}" for rule in rules))) + "\n"


class Hub:
    """The bridge of the hosts. Each method raises :class:`BenchError` if nft(8) or ip(8) fails."""

    def lose(self, *rules: str) -> None:
        """Replace all rules for loss with ``rules``. Without ``rules``, nothing is lost."""
        _nft(ruleset(rules))

    def cut(self, number: int) -> None:
        """Take down the bridge port of host ``number``."""
        run("ip", "-n", HUB, "link", "set", port_of(number, PREFIX), "down")

    def join(self, number: int) -> None:
        """Take up the bridge port of host ``number``."""
        run("ip", "-n", HUB, "link", "set", port_of(number, PREFIX), "up")

    def sent(self) -> dict[str, int]:
        """Packets that all hosts have sent so far: counter (gossip, edges, serf) -> packets."""
        found = json.loads(run("nft", "-j", "list", "counters", "table", *_TABLE.split(), namespace=HUB))
        counters = [entry["counter"] for entry in found["nftables"] if "counter" in entry]
        return {str(counter["name"]): int(counter["packets"]) for counter in counters}


def _nft(script: str) -> None:
    command = [*netns.enter(HUB), "nft", "-f", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=30)
    if done.returncode:
        missing = "; install the Debian package nftables" if "No such file" in done.stderr else ""
        raise BenchError(f"nft: exit status {done.returncode}: {done.stderr.strip()}{missing}")


@contextlib.contextmanager
def hosts(count: int, mtu: int, tags: bool) -> Iterator[Hub]:
    """Context manager: ``count`` hosts on a bridge, without agents. They are removed at the end, also after an error.

    ``mtu``: MTU of the links in bytes. ``tags``: whether the interfaces keep VLAN tags beside the frame, where generic
    XDP does not see them.
    """
    names = [host(number) for number in range(count)]
    room = contextlib.nullcontext() if count <= _FEW else neighbour_room(count)
    with netns.namespaces(HUB, *names, prefix=PREFIX), room:
        wire(names, HUB, PREFIX, mtu)
        for number, name in enumerate(names):
            netns.batch(["route add unreachable default metric 4278198272"], name)
            if not tags:
                for where, interface in ((HUB, port_of(number, PREFIX)), (name, "eth0")):
                    run("ethtool", "-K", interface, "rxvlan", "off", "txvlan", "off", namespace=where)
        _nft(_RULES)
        yield Hub()


@contextlib.contextmanager
def busy(loops: int, nice: int) -> Iterator[None]:
    """Context manager: ``loops`` processes that use all the processor time they get, at the nice value ``nice``."""
    command = ["setpriv", "--pdeathsig", "KILL", "nice", "-n", str(nice), "sh", "-c", "while :; do :; done"]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(loops):
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
