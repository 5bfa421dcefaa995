# SPDX-License-Identifier: MIT
"""``agent`` and ``check-config``: the commands that read the configuration file."""

from __future__ import annotations

import argparse
import sys
import types
from typing import TYPE_CHECKING, Any

from .common import DEFAULT_CONFIG, OK, USAGE, CommandError, print_json, wants_json
from .parser import add_command, add_config, path

if TYPE_CHECKING:
    from ..config.agent import ConfigError


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the parser."""
    agent = add_command(
        commands,
        "agent",
        "run the agent in the foreground",
        "Run the agent in the foreground until SIGTERM or SIGINT. SIGHUP reads the configuration again. The log goes "
        "to standard error.",
        ["xdp-gossip agent", "xdp-gossip agent --config /etc/xdp-gossip/agent.yml"],
        common,
    )
    add_config(agent)
    agent.set_defaults(handler=run_agent)

    check = add_command(
        commands,
        "check-config",
        "check a configuration file",
        "Check a configuration file, and print every problem in it with what was expected.",
        ["xdp-gossip check-config", "xdp-gossip check-config new.yml --json"],
        common,
    )
    text = f"the file to check (default: {DEFAULT_CONFIG})"
    check.add_argument("file", metavar="FILE", type=path, nargs="?", default=DEFAULT_CONFIG, help=text)
    check.set_defaults(handler=check_config)


def run_agent(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; 2 when the configuration is wrong, 1 when the agent cannot start or fails."""
    from ..config.agent import ConfigError, load

    try:
        config = load(args.config)
    except ConfigError as error:
        raise wrong_configuration(error) from None
    _spare_charset_detection()
    from ..service import daemon

    return daemon.main(config)


def wrong_configuration(error: ConfigError) -> CommandError:
    """The mistakes of a configuration, one a line."""
    first, *more = error.problems
    return CommandError(first, USAGE, "configuration", more=more, problems=list(error.problems))


def _spare_charset_detection() -> None:
    """Keep 1.2 MB out of the agent's memory.

    aiohttp loads ``cchardet``, or else ``charset_normalizer``, to guess the encoding of answers to its HTTP client. The
    agent has only its server, which guesses nothing. An empty module in the first one's place keeps both out.
    """
    if "aiohttp" not in sys.modules:
        sys.modules.setdefault("cchardet", types.ModuleType("cchardet"))


def check_config(args: argparse.Namespace) -> int:
    """Print every problem of the file, one a line, on stderr; 2 when there is any."""
    from ..config.agent import ConfigError, describe, load

    try:
        config = load(args.file)
    except ConfigError as error:
        if wants_json(args):
            print_json({"file": args.file, "problems": list(error.problems)})
        raise wrong_configuration(error) from None
    if wants_json(args):
        print_json(describe(config))
    else:
        print(f"{args.file}: ok")
    return OK
