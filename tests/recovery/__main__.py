# SPDX-License-Identifier: MIT
"""How soon a host is back in its best mode: ``python -m tests.recovery [--runs N] [--lab DIRECTORY HOST ...]``; root.

Without ``--lab`` in namespaces, where a thread plays systemd's path unit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "agent"), str(ROOT)]

from tests.planes.fleet import Host, command  # noqa: E402
from tests.recovery.lab import LabHost  # noqa: E402
from tests.recovery.managers import MANAGERS, NETWORKD  # noqa: E402
from tests.recovery.seconds import table  # noqa: E402
from tests.recovery.world import PathUnit, World, hub, pinned, plug, there  # noqa: E402


class NamespaceHost:
    """One host of a world in namespaces; see ``Measured``."""

    def __init__(self, world: World, host: Host, unit: PathUnit) -> None:
        self._world, self._host, self._unit = world, host, unit
        self.status = host.status

    def detach(self) -> None:
        """See ``Measured``."""
        command("bpftool", "link", "detach", "pinned", str(pinned(self._host, "link_xdp")))

    def take_address(self) -> None:
        """See ``Measured``."""
        there(self._host, "ip", "address", "delete", f"{self._host.ip}/24", "dev", "eth0")

    def give_address(self) -> None:
        """See ``Measured``."""
        there(self._host, "ip", "address", "add", f"{self._host.ip}/24", "dev", "eth0")

    def lose_carrier(self) -> None:
        """See ``Measured``."""
        hub("ip", "link", "set", f"v{self._host.number}", "down")

    def give_carrier(self) -> None:
        """See ``Measured``."""
        hub("ip", "link", "set", f"v{self._host.number}", "up")

    def delete_interface(self) -> None:
        """See ``Measured``."""
        command("ip", "-n", self._host.namespace, "link", "delete", "eth0")

    def make_interface(self) -> None:
        """See ``Measured``."""
        plug(self._host)

    def boot_without_address(self) -> None:
        """See ``Measured``."""
        self._host.stop()
        self._host.unload()
        self.take_address()
        self._unit.boot()
        self._world.start([self._host])


def main() -> int:
    """Print the table; 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.recovery", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each cause is measured (default: 3)")
    parser.add_argument("--lab", nargs=2, metavar=("DIRECTORY", "HOST"), help="on a host of the role lab")
    parser.add_argument("--manager", choices=MANAGERS, default=NETWORKD.name, help="of that host")
    args = parser.parse_args()
    if args.lab:
        host = LabHost(Path(args.lab[0]), args.lab[1], MANAGERS[args.manager])
        table(host, f"{args.lab[1]}, systemd and {args.manager}", args.runs)
        return 0
    with World() as world:
        world.start()
        world.settled(60)
        table(NamespaceHost(world, world[1], world.units[1]), "namespaces", args.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
