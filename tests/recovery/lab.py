# SPDX-License-Identifier: MIT
"""A host of the role ``lab``, with systemd and a network manager: faults are made from the machine that it runs on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.recovery.managers import NETWORKD, Manager
from tests.support.process import ROOT, UnixConnection

_SECONDS = 60.0
_UNITS = ("xdp-gossip", "xdp-gossip-dataplane.path", "xdp-gossip-dataplane")


class LabHost:
    """The host ``name`` of the lab in ``directory``; the role ``agent`` has deployed an agent there.

    ``manager``: what is in charge of its interfaces.
    """

    def __init__(self, directory: Path, name: str, manager: Manager = NETWORKD) -> None:
        self._manager = manager
        lab = str(ROOT / "roles" / "lab" / "files" / "lab.py")
        state = json.loads(_run(sys.executable, lab, "--config", str(directory / "config.json"), "status"))
        found = next(host for host in state["hosts"] if host["name"] == name)
        self._address = str(found["address"])
        # The container's init is the first child of what started it.
        self._init = _run("pgrep", "-P", str(found["pid"])).split()[0]
        self._root = Path("/proc") / self._init / "root"
        self._far, self._bridge, self._mac = self._wiring()

    def _wiring(self) -> tuple[str, str, str]:
        """The machine's end of the link, the bridge that it is in, and the host's hardware address."""
        (own,) = json.loads(self._inside("ip", "-j", "link", "show", "host0"))
        every = json.loads(_run("ip", "-j", "link", "show"))
        far = next(link for link in every if link["ifindex"] == own["link_index"])
        return far["ifname"], far["master"], own["address"]

    def _inside(self, *words: str) -> str:
        return _run("nsenter", "-t", self._init, "-a", *words)

    def status(self) -> dict[str, Any]:
        """See ``Measured``."""
        connection = UnixConnection(str(self._root / "run/xdp-gossip/api.sock"))
        try:
            connection.request("GET", "/v1/status")
            found = json.loads(connection.getresponse().read())
        except OSError as error:
            found = {"error": str(error)}
        finally:
            connection.close()
        return found if "mode" in found else {"mode": "none", "mode_reason": str(found), "counters": {}}

    def detach(self) -> None:
        """See ``Measured``."""
        for path in (self._root / "run/xdp-gossip-dataplane/bpf").glob("v*/link_xdp"):
            path.unlink()

    def is_attached(self) -> bool:
        """Whether the loader has pinned the program's link."""
        return any((self._root / "run/xdp-gossip-dataplane/bpf").glob("v*/link_xdp"))

    def take_address(self) -> None:
        """See ``Measured``."""
        self._inside("ip", "address", "flush", "dev", "host0", "scope", "global")

    def give_address(self) -> None:
        """See ``Measured``."""
        self._inside(*self._manager.give)

    def lose_carrier(self) -> None:
        """See ``Measured``; networkd and NetworkManager take the address away as well."""
        _run("ip", "link", "set", self._far, "down")

    def give_carrier(self) -> None:
        """See ``Measured``."""
        _run("ip", "link", "set", self._far, "up")

    def delete_interface(self) -> None:
        """See ``Measured``."""
        _run("ip", "link", "delete", self._far)

    def make_interface(self) -> None:
        """See ``Measured``; the manager gives it its address."""
        peer = ("peer", "name", "host0", "address", self._mac, "netns", self._init)
        _run("ip", "link", "add", self._far, "type", "veth", *peer)
        _run("ip", "link", "set", self._far, "master", self._bridge, "up")
        _run("ethtool", "-K", self._far, "gro", "on")
        if self._manager.hotplug:
            self.give_address()

    def boot_without_address(self) -> None:
        """See ``Measured``."""
        self._inside("systemctl", "stop", *_UNITS)
        self.take_address()
        self._inside("systemctl", "start", "xdp-gossip-dataplane")
        self._inside("systemctl", "start", "xdp-gossip")


def _run(*words: str) -> str:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout
