# SPDX-License-Identifier: MIT
"""The table of networks: how a host of each kind is made, and which mode its data plane gets."""

from __future__ import annotations

from tests.networks.tunnel import Tunnel
from tests.networks.world import COUNT, NetHost, Row, usual
from tests.planes.fleet import command, enter

GENERIC = "XDP (generic)"


def veth(host: NetHost) -> None:
    host.wire()
    _address(host, "eth0")


def veth_jumbo(host: NetHost) -> None:
    """As it comes: the tags of other VLANs would be taken out of the frames before XDP sees them."""
    host.wire(mtu=9000)
    _address(host, "eth0")


def veth_jumbo_tags_kept(host: NetHost) -> None:
    host.wire(mtu=9000)
    _keep_tags(host)
    _address(host, "eth0")


def bond(host: NetHost) -> None:
    host.ip_("link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "100")
    for port in ("eth0", "eth1"):
        host.wire(port)
        host.ip_("link", "set", port, "down")
        host.ip_("link", "set", port, "master", "bond0")
    host.ip_("link", "set", "bond0", "up")
    _address(host, "bond0")


def vlan(host: NetHost) -> None:
    host.wire()
    host.ip_("link", "add", "link", "eth0", "name", "eth0.5", "type", "vlan", "id", "5")
    host.ip_("link", "set", "eth0.5", "up")
    _address(host, "eth0.5")


def bridge(host: NetHost) -> None:
    host.wire()
    host.ip_("link", "add", "br9", "type", "bridge")
    host.ip_("link", "set", "eth0", "master", "br9")
    host.ip_("link", "set", "br9", "up")
    _address(host, "br9")


def macvlan(host: NetHost) -> None:
    host.wire()
    host.ip_("link", "add", "link", "eth0", "name", "mac0", "type", "macvlan", "mode", "bridge")
    host.ip_("link", "set", "mac0", "up")
    _address(host, "mac0")


def ipvlan(host: NetHost) -> None:
    host.wire()
    host.ip_("link", "add", "link", "eth0", "name", "ipv0", "type", "ipvlan", "mode", "l2")
    host.ip_("link", "set", "ipv0", "up")
    _address(host, "ipv0")


def vrf(host: NetHost) -> None:
    """The agent runs in the VRF, as a service does that ``ip vrf exec`` starts; the loader does not."""
    host.ip_("link", "add", "blue", "type", "vrf", "table", "50")
    host.ip_("link", "set", "blue", "up")
    host.wire()
    host.ip_("link", "set", "eth0", "master", "blue")
    _address(host, "eth0")
    host.prefix = (*enter(host.namespace), "ip", "vrf", "exec", "blue", *host.prefix[2:])


def held_by_vrf(host: NetHost) -> None:
    """The address on the VRF itself, as BGP daemons announce it."""
    vrf(host)
    host.ip_("addr", "del", f"{usual(host.number)}/18", "dev", "eth0")
    host.assign("eth0", f"198.18.66.{host.number}/24")
    host.assign("blue", f"{host.ip}/32")
    for other in _others(host):
        host.ip_("route", "add", usual(other), "via", f"198.18.66.{other}", "vrf", "blue", "src", host.ip)


def on_lo(host: NetHost) -> None:
    _routed(host, "lo")


def on_dummy(host: NetHost) -> None:
    host.ip_("link", "add", "dummy0", "type", "dummy")
    host.ip_("link", "set", "dummy0", "up")
    _routed(host, "dummy0")


def secondary(host: NetHost) -> None:
    """The address is the second of its network: no route chooses it."""
    host.wire()
    host.assign("eth0", f"198.18.64.{host.number + 100}/18")
    host.assign("eth0", f"{host.ip}/18")


def several_six(host: NetHost) -> None:
    """Three IPv6 addresses of one network, and one that must not be chosen for new packets (RFC 6724, rule 3)."""
    host.wire()
    for part in ("a", "b", "c"):
        host.assign("eth0", f"fd00:198:18:64::{part}:{host.number:x}/64")
    host.assign("eth0", f"{host.ip}/64", "preferred_lft", "0")


def six(host: NetHost) -> None:
    host.wire()
    host.assign("eth0", f"{host.ip}/64")


def both_families(host: NetHost) -> None:
    """Known by its IPv4 address; the sockets are IPv6 ones, for which the address is a mapped one."""
    six_address = usual(host.number, True)
    host.wire()
    _address(host, "eth0")
    host.assign("eth0", f"{six_address}/64")


def policy_routing(host: NetHost) -> None:
    """Two networks: without a rule for the source, packets would leave by the first."""
    host.wire()
    host.assign("eth0", f"198.18.80.{host.number}/24")
    host.wire("eth1", bridge="br1")
    host.assign("eth1", f"{host.ip}/24", "noprefixroute")
    host.ip_("route", "add", "198.18.64.0/24", "dev", "eth0")
    host.ip_("route", "add", "198.18.64.0/24", "dev", "eth1", "table", "100")
    host.ip_("rule", "add", "from", host.ip, "lookup", "100")


def tun(host: NetHost) -> None:
    host.cleanup.enter_context(Tunnel(host.namespace, "tun0", host.ip))
    host.ip_("link", "set", "tun0", "mtu", "1500", "up")
    _address(host, "tun0")


def wireguard(host: NetHost) -> None:
    """Over veth, every other host a peer."""
    host.wire()
    host.assign("eth0", f"198.18.80.{host.number}/24")
    host.ip_("link", "add", "wg0", "type", "wireguard")
    secrets = {number: bytes([number]) * 32 for number in range(1, COUNT + 1)}
    path = host.directory / "wireguard.conf"
    lines = ["[Interface]", "ListenPort = 51820", f"PrivateKey = {_base64(secrets[host.number])}"]
    for other in _others(host):
        public = command_input(("wg", "pubkey"), _base64(secrets[other]))
        lines += ["[Peer]", f"PublicKey = {public}", f"AllowedIPs = {usual(other)}/32"]
        lines += [f"Endpoint = 198.18.80.{other}:51820"]
    path.write_text("\n".join(lines) + "\n")
    command(*enter(host.namespace), "wg", "setconf", "wg0", str(path))
    host.ip_("link", "set", "wg0", "up")
    _address(host, "wg0")


def _address(host: NetHost, device: str) -> None:
    host.assign(device, f"{usual(host.number)}/18")


def _keep_tags(host: NetHost) -> None:
    """VLAN tags stay in the frames that come in by the wire."""
    host.offload("rxvlan", "off")
    command(*enter(host.hub), "ethtool", "-K", f"eth0-{host.number}", "txvlan", "off")


def _others(host: NetHost) -> list[int]:
    return [number for number in range(1, COUNT + 1) if number != host.number]


def _routed(host: NetHost, holder: str) -> None:
    """The address on an interface that nothing arrives on, and a route to that of each other host."""
    host.wire()
    host.assign("eth0", f"198.18.66.{host.number}/24")
    host.assign(holder, f"{host.ip}/32")
    for other in _others(host):
        host.ip_("route", "add", usual(other), "via", f"198.18.66.{other}")


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def command_input(words: tuple[str, ...], text: str) -> str:
    """The output of a command that reads ``text``."""
    import subprocess

    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


ROWS = [
    Row("veth, MTU 1500", veth),
    Row("veth, MTU 9000", veth_jumbo, mode="TC", words="rx-vlan-offload"),
    Row("veth, MTU 9000, tags kept", veth_jumbo_tags_kept, mode=GENERIC, words="XDP (native)"),
    Row("bond", bond, interface="bond0", needs=("bond",)),
    Row("VLAN", vlan, mode=GENERIC, words="XDP (native)", interface="eth0.5", needs=("vlan",)),
    Row("bridge", bridge, mode="TC", words="VLAN tags", interface="br9"),
    Row("macvlan", macvlan, mode="TC", words="VLAN tags", interface="mac0", needs=("macvlan",), variant=True),
    Row("ipvlan", ipvlan, mode="TC", words="VLAN tags", interface="ipv0", needs=("ipvlan",), variant=True),
    Row("VRF", vrf, needs=("vrf",)),
    Row("address on a VRF", held_by_vrf, needs=("vrf",)),
    Row("address on lo", on_lo),
    Row("address on lo, interface named", on_lo, settings={"dataplane": {"interface": "eth0"}}, variant=True),
    Row("address on a dummy", on_dummy, needs=("dummy",), variant=True),
    Row("secondary address", secondary),
    Row("IPv6", six, six=True, variant=True),
    Row("several IPv6 addresses", several_six, six=True),
    Row("IPv4 and IPv6", both_families, settings={"listen_addr": "::"}),
    Row("policy routing", policy_routing, interface="eth1"),
    Row("wireguard", wireguard, mode="UDP", words="Ethernet", interface="wg0", needs=("wireguard",)),
    Row("tun", tun, mode="UDP", words="Ethernet", interface="tun0", needs=("tun",)),
]
