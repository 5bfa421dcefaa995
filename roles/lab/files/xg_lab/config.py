# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's settings. Every command checks the settings before it changes the lab."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .system import LabError

FIRST_HOST = 11
"""Number of the first host's address within the network; the machine itself has number 1."""

# A path may contain only characters without a special meaning in overlayfs mount options, ssh options and YAML.
_PATH = re.compile(r"/[A-Za-z0-9._/+@-]+")
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,6}[a-z])?")
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?")


@dataclass(frozen=True)
class Host:
    """One host of the lab, with its name, addresses, network interface and directories."""

    name: str
    address: str
    """IPv4 address."""
    address6: str
    interface: str
    """Name of the machine's end of the host's veth pair."""
    folder: Path
    """Directory with all files of this host."""
    log: Path
    suite: str
    """Debian release of the host's base image."""

    @property
    def root(self) -> Path:
        """Return the mount point of the host's file system, which is an overlay on the base image."""
        return self.folder / "root"


@dataclass(frozen=True)
class Config:
    """Settings of one lab.

    The fields have the names of the role's variables without the prefix `lab_`. Raises LabError for an invalid value.
    """

    hosts: int
    name: str
    dir: str
    cache_dir: str
    bridge: str
    network: str
    network6: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    mirror: str
    inventory: str
    boot_timeout: float
    image_timeout: float

    def __post_init__(self) -> None:
        for key in ("dir", "cache_dir", "inventory"):
            value = getattr(self, key)
            self._expect(
                bool(_PATH.fullmatch(value)) and ".." not in value.split("/"),
                key,
                "an absolute path of letters, digits and ._/+@-",
            )
        self._expect(bool(_NAME.fullmatch(self.name)), "name", "1 to 8 of a-z, 0-9 and -, a letter first and last")
        self._expect(bool(_INTERFACE.fullmatch(self.bridge)), "bridge", "an interface name of at most 15 characters")
        self._expect(bool(self.suites), "suites", "at least one Debian release name such as bookworm")
        for suite in self.suites:
            if not re.fullmatch(r"[a-z]+", suite):
                raise LabError(f"lab_suites: {suite!r}: expected a Debian release name such as bookworm")
        for package in self.packages:
            if not _PACKAGE.fullmatch(package):
                raise LabError(f"lab_packages: {package!r}: expected the name of a Debian package")
        self._expect(
            self.mirror == "" or re.fullmatch(r"(https?|file)://\S+", self.mirror) is not None,
            "mirror",
            "a URL",
        )
        for key in ("boot_timeout", "image_timeout"):
            self._expect(getattr(self, key) > 0, key, "seconds, more than 0")
        self._check_networks()

    def _check_networks(self) -> None:
        network, network6 = self._network("network", 4), self._network("network6", 6)
        room = min(network.num_addresses, network6.num_addresses) - 1 - FIRST_HOST
        self._expect(
            0 <= self.hosts <= min(room, 999),
            "hosts",
            f"0 to {max(min(room, 999), 0)}, what the networks have room for",
        )
        # The host part of an IPv6 address consists of the decimal digits of the IPv4 host part, at most 9999, so the
        # IPv6 host part needs 16 bits.
        self._expect(network6.prefixlen <= 112, "network6", "a prefix of at most 112 bits")

    def _network(self, key: str, version: int) -> Any:
        try:
            network = ipaddress.ip_network(getattr(self, key))
        except ValueError as error:
            raise LabError(f"lab_{key}: {error}; expected an IPv{version} network such as 198.18.0.0/24") from error
        self._expect(network.version == version and network.is_private, key, f"a private IPv{version} network")
        return network

    def _expect(self, good: bool, key: str, what: str) -> None:
        if not good:
            raise LabError(f"lab_{key}: {getattr(self, key)!r}: expected {what}")

    @classmethod
    def from_object(cls, value: Any) -> Config:
        """Build the settings from a JSON object.

        Raises LabError with the name of a key that is missing, unknown or of the wrong type.
        """
        if not isinstance(value, dict):
            raise LabError(f"lab settings: {type(value).__name__}: expected an object")
        names = {field.name for field in fields(cls)}
        missing, unknown = sorted(names - value.keys()), sorted(value.keys() - names)
        if missing or unknown:
            raise LabError(f"lab settings: missing {missing}, unknown {unknown}")
        typed = dict(value)
        try:
            typed["hosts"] = int(value["hosts"])
            typed["boot_timeout"], typed["image_timeout"] = (
                float(value["boot_timeout"]),
                float(value["image_timeout"]),
            )
        except (TypeError, ValueError) as error:
            raise LabError(f"lab settings: hosts, boot_timeout, image_timeout: {error}; expected numbers") from error
        for key in ("packages", "suites"):
            if not isinstance(value[key], (list, tuple)):
                raise LabError(f"lab_{key}: expected a list")
        typed["packages"] = tuple(sorted({str(package) for package in value["packages"]}))
        typed["suites"] = tuple(map(str, value["suites"]))
        for key in names - {"hosts", "boot_timeout", "image_timeout", "packages", "suites"}:
            if not isinstance(value[key], str):
                raise LabError(f"lab_{key}: {value[key]!r}: expected text")
        return cls(**typed)

    def to_json(self) -> str:
        """Return the settings as JSON text that `from_object` accepts."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def home(self) -> Path:
        """Return the lab's directory."""
        return Path(self.dir)

    @property
    def key_file(self) -> Path:
        """Return the path of the private ssh key for root on every host."""
        return self.home / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Return the path of the known_hosts file with the host keys of all hosts."""
        return self.home / "ssh" / "known_hosts"

    @property
    def gateway(self) -> str:
        """Return the machine's own IPv4 address on the bridge, with its prefix length."""
        network = ipaddress.ip_network(self.network)
        return f"{network[1]}/{network.prefixlen}"

    @property
    def gateway6(self) -> str:
        """Return the machine's own IPv6 address on the bridge, with its prefix length."""
        network = ipaddress.ip_network(self.network6)
        return f"{network[1]}/{network.prefixlen}"

    @property
    def bridge_mac(self) -> str:
        """Return the locally administered MAC address of this lab's bridge, by which the lab recognises the bridge."""
        digest = hashlib.sha256(f"xdp-gossip-lab {self.dir} {self.bridge}".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))

    def host(self, name: str) -> Host:
        """Return the host called `name`. Raises LabError if no host of this lab can have that name."""
        digits = name[len(self.name) :]
        if not name.startswith(self.name) or not re.fullmatch(r"[1-9][0-9]{0,2}", digits):
            raise LabError(f"{name}: no host of this lab; its hosts are {self.name}1 to {self.name}{self.hosts}")
        number = FIRST_HOST - 1 + int(digits)
        return Host(
            name=name,
            address=str(ipaddress.ip_network(self.network)[number]),
            address6=str(ipaddress.ip_network(self.network6)[int(str(number), 16)]),
            interface=f"vb-{name}",
            folder=self.home / "hosts" / name,
            log=self.home / "logs" / f"{name}.log",
            suite=self.suites[(int(digits) - 1) % len(self.suites)],
        )

    def wanted(self) -> list[Host]:
        """Return the hosts that should run, ordered by number."""
        return [self.host(f"{self.name}{number}") for number in range(1, self.hosts + 1)]

    def wanted_suites(self) -> list[str]:
        """Return the Debian releases of the hosts that should run, each release once, in the order of the hosts."""
        return list(dict.fromkeys(host.suite for host in self.wanted()))
