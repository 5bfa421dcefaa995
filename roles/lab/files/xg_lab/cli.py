# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab, which reads the settings, runs one sub-command, and prints the result of the sub-command as
one JSON object.

If the sub-command fails, the reason goes to stderr and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import fleet, image
from .config import Config
from .system import LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sub-command in `arguments` and return the exit status."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        if os.geteuid() != 0:
            raise LabError("the lab makes mounts and network interfaces: run it as root")
        result = _dispatch(options, _load(options.config))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    result["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab.py", description="A throw-away fleet of Debian hosts on this machine.")
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="file with the settings as JSON, - for standard input; a lab stores its settings in <lab_dir>/config.json",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("image", help="build the base images that are not in the cache")
    commands.add_parser("cached", help="show whether the base images are in the cache")
    commands.add_parser("present", help="create the lab, or change the lab to match the settings")
    absent = commands.add_parser("absent", help="remove the lab")
    absent.add_argument("--purge-cache", action="store_true", help="also delete the cached images")
    planned = commands.add_parser("plan", help="show what present or absent would do")
    planned.add_argument("state", choices=("present", "absent"))
    for name, text in (("kill", "cut the power of one host"), ("start", "boot one host again")):
        commands.add_parser(name, help=text).add_argument("target")
    commands.add_parser("status", help="show the hosts and whether each is on")
    return parser


def _load(source: str) -> Config:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        return Config.from_object(json.loads(text))
    except OSError as error:
        raise LabError(f"{source}: {error.strerror}; expected the lab's settings") from error
    except ValueError as error:
        raise LabError(f"{source}: {error}; expected the lab's settings as JSON") from error


def _dispatch(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    if options.command == "image":
        return {"changed": bool(image.build(config)), "images": [str(path) for path in image.image_paths(config)]}
    if options.command == "cached":
        paths = image.image_paths(config)
        return {
            "changed": False,
            "images": [str(path) for path in paths],
            "cached": all(path.is_dir() for path in paths),
        }
    if options.command == "present":
        return fleet.present(config)
    if options.command == "absent":
        return fleet.absent(config, options.purge_cache)
    if options.command == "plan":
        steps = fleet.plan(config, options.state)
        return {"changed": bool(steps), "steps": steps}
    if options.command == "kill":
        return fleet.cut_power(config, options.target)
    if options.command == "start":
        return fleet.switch_on(config, options.target)
    return fleet.status(config)
