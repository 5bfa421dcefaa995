# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the releases of the scenario from copies of the checkout, each changed in its own way.

Usage: ``releases.py CHECKOUT OUTPUT``. Leaves ``OUTPUT/NAME/xdp-gossip-VERSION.tar.gz`` for each of ``RELEASES``. All
come from one copy: what is edited in the checkout meanwhile does not get in between two of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

DAEMON = "agent/xdp_gossip/service/daemon.py"
RUNTIME = "agent/xdp_gossip/node/runtime.py"
PROGRAMS = "bpf/dataplane.c"
BEGIN = "        self.settings = settings\n        self.node_list ="
SEND = "for transmit in self.engine.take_transmits():"
OTHER_PROGRAMS = (PROGRAMS, "", "\n/* another release */\n")

#: name -> (version, changes: (file, text that must stand in it once, what takes its place)); no text: at the end.
RELEASES = {
    "first": ("9.0.0", ()),
    "next": ("9.1.0", (OTHER_PROGRAMS, (DAEMON, BEGIN, "        time.sleep(7)\n" + BEGIN))),
    "broken": (
        "9.2.0",
        (OTHER_PROGRAMS, (DAEMON, BEGIN, '        raise RuntimeError("this release does not start")\n' + BEGIN)),
    ),
    "wire": (
        "9.4.0",
        (
            ("agent/xdp_gossip/wire/native.py", "WIRE_VERSION = 2\n", "WIRE_VERSION = 99\n"),
            ("bpf/wire.h", "#define XG_WIRE_VERSION 2\n", "#define XG_WIRE_VERSION 99\n"),
        ),
    ),
    "mute": ("9.3.0", (OTHER_PROGRAMS, (RUNTIME, SEND, "for transmit in self.engine.take_transmits() and ():"))),
}


def change(path: Path, old: str, new: str) -> None:
    """Replace ``old``; the source that it was written for may have changed, and then nothing would be tested."""
    text = path.read_text(encoding="utf-8")
    if old and text.count(old) != 1:
        raise SystemExit(f"{path}: expected once, found {text.count(old)} times: {old!r}")
    path.write_text(text.replace(old, new) if old else text + new, encoding="utf-8")


def build(base: Path, output: Path, version: str, changes: tuple[tuple[str, str, str], ...]) -> None:
    """Copy, change and build one release."""
    copy = output / "tree"
    shutil.copytree(base, copy)
    package = copy / "agent/xdp_gossip/__init__.py"
    stated = re.findall(r'^__version__ = ".*"$', package.read_text(encoding="utf-8"), re.MULTILINE)
    change(package, *stated, f'__version__ = "{version}"')
    for name, old, new in changes:
        change(copy / name, old, new)
    command = [sys.executable, "-I", str(copy / "agent/build_release.py"), "--root", str(copy), "--output", str(output)]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    shutil.rmtree(copy)


def main() -> int:
    """Build all of them anew."""
    checkout, output = map(Path, sys.argv[1:3])
    shutil.rmtree(output, ignore_errors=True)
    base = output / "base"
    for part in ("agent", "bpf", "LICENSES"):
        shutil.copytree(checkout / part, base / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (version, changes) in RELEASES.items():
        (output / name).mkdir()
        build(base, output / name, version, changes)
    shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
