# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the releases of the scenario from copies of the checkout, each with its own changes.

Usage: ``releases.py CHECKOUT OUTPUT``. Writes ``OUTPUT/NAME/xdp-gossip-VERSION.tar.gz`` for each of ``RELEASES``. The
checkout is copied only once, so that edits during the build do not cause further differences between the releases.
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

#: Name of a release -> (version, changes). A change is (file, text that occurs once in it, replacement). If the text is
#: empty, the replacement is appended to the file.
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
    """Replace the text ``old`` in the file. Exits the script unless ``old`` occurs exactly once.

    If a missing text were ignored, the release would be a plain copy and would test nothing.
    """
    text = path.read_text(encoding="utf-8")
    if old and text.count(old) != 1:
        raise SystemExit(f"{path}: expected once, found {text.count(old)} times: {old!r}")
    path.write_text(text.replace(old, new) if old else text + new, encoding="utf-8")


def build(base: Path, output: Path, version: str, changes: tuple[tuple[str, str, str], ...]) -> None:
    """Copy the source, apply the changes, and build one release into ``output``."""
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
    """Delete the output directory and build all releases again."""
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
