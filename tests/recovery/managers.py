# SPDX-License-Identifier: MIT
"""What configures the interfaces of a host: files that put one in charge, and the command that gives addresses back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Manager:
    """A network manager of a host of the role ``lab``, whose own is systemd-networkd."""

    name: str
    #: Debian's packages, for ``lab_extra_packages``.
    packages: Sequence[str]
    #: Shell script that puts it in charge at the next boot; gets the addresses with their prefixes, IPv4 and IPv6.
    script: str
    #: Gives the interface its addresses back.
    give: Sequence[str]
    #: Whether udev has to call ``give`` when an interface appears: it does not run in a container.
    hotplug: bool = False


_NO_NETWORKD = """
set -eu
rm -f /etc/systemd/network/10-lab.network
systemctl disable --quiet systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service
"""

NETWORKD = Manager("systemd-networkd", (), "", ("networkctl", "reconfigure", "host0"))

IFUPDOWN = Manager(
    "ifupdown",
    ("ifupdown",),
    _NO_NETWORKD
    + """
cat >/etc/network/interfaces <<END
auto lo
iface lo inet loopback

auto host0
iface host0 inet static
    address $1
iface host0 inet6 static
    address $2
    dad-attempts 0
END
systemctl enable --quiet networking.service
""",
    ("ifup", "--force", "host0"),
    hotplug=True,
)

NETWORKMANAGER = Manager(
    "NetworkManager",
    ("network-manager",),
    _NO_NETWORKD
    + """
install --mode=0600 /dev/null /etc/NetworkManager/system-connections/lab.nmconnection
cat >/etc/NetworkManager/system-connections/lab.nmconnection <<END
[connection]
id=lab
type=ethernet
interface-name=host0

[ipv4]
method=manual
address1=$1

[ipv6]
method=manual
address1=$2
END
systemctl enable --quiet NetworkManager.service
""",
    ("nmcli", "connection", "up", "lab"),
)

MANAGERS = {manager.name: manager for manager in (NETWORKD, IFUPDOWN, NETWORKMANAGER)}
#: All that the hosts need, whichever is in charge.
PACKAGES = [package for manager in MANAGERS.values() for package in manager.packages]
