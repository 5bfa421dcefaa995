# SPDX-License-Identifier: MIT
"""``agent`` and ``check-config``: the commands that read the configuration file."""

from __future__ import annotations

import argparse
import sys
import types
from typing import Any

from .common import DEFAULT_CONFIG, OK, USAGE, print_json, wants_json


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the parser."""
    agent = commands.add_parser("agent", help="run the agent in the foreground", parents=[common])
    agent.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help=f"(default: {DEFAULT_CONFIG})")
    agent.set_defaults(handler=run_agent)

    check = commands.add_parser("check-config", help="check a configuration file", parents=[common])
    check.add_argument("file", metavar="FILE", nargs="?", default=DEFAULT_CONFIG, help=f"(default: {DEFAULT_CONFIG})")
    check.set_defaults(handler=check_config)


def run_agent(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; 2 when the configuration is wrong, 1 when the agent cannot start or fails."""
    from ..config import ConfigError, load

    try:
        config = load(args.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return USAGE
    _spare_charset_detection()
    from .. import daemon

    return daemon.main(config)


def _spare_charset_detection() -> None:
    """Keep 1.2 MB out of the agent's memory.

    aiohttp loads ``cchardet``, or else ``charset_normalizer``, to guess the encoding of answers to its HTTP client. The
    agent has only its server, which guesses nothing. An empty module in the first one's place keeps both out.
    """
    if "aiohttp" not in sys.modules:
        sys.modules.setdefault("cchardet", types.ModuleType("cchardet"))


def check_config(args: argparse.Namespace) -> int:
    """Print every problem of the file, one a line, on stderr; 2 when there is any."""
    from ..config import ConfigError, describe, load

    try:
        config = load(args.file)
    except ConfigError as error:
        if wants_json(args):
            print_json({"file": args.file, "problems": list(error.problems)})
        print(error, file=sys.stderr)
        return USAGE
    if wants_json(args):
        print_json(describe(config))
    else:
        print(f"{args.file}: ok")
    return OK
