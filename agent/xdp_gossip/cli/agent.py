# SPDX-License-Identifier: MIT
"""The commands ``agent`` and ``check-config``, which read the agent's configuration file."""

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
    """Add the commands ``agent`` and ``check-config`` to the parser."""
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
    """Run the agent until SIGTERM or SIGINT.

    Returns exit code 2 if the configuration is invalid, 1 if the agent cannot start or fails.
    """
    from ..common.dumps import forbid_core_dumps
    from ..config.agent import ConfigError, load

    forbid_core_dumps()  # before the first secret is read
    try:
        config = load(args.config)
    except ConfigError as error:
        raise wrong_configuration(error) from None
    _spare_charset_detection()
    from ..service import daemon

    return daemon.main(config)


def wrong_configuration(error: ConfigError) -> CommandError:
    """Build the error for an invalid configuration, with one problem per line."""
    first, *more = error.problems
    return CommandError(first, USAGE, "configuration", more=more, problems=list(error.problems))


def _spare_charset_detection() -> None:
    """Prevent aiohttp from loading a charset detector, which saves 1.2 MB of the agent's memory.

    aiohttp imports ``cchardet`` or, if ``cchardet`` is not installed, ``charset_normalizer``. Only aiohttp's HTTP
    client needs such a library, to guess the encoding of responses. The agent uses only aiohttp's server, which does
    not guess encodings. An empty module named ``cchardet`` prevents aiohttp from loading either library.
    """
    if "aiohttp" not in sys.modules:
        sys.modules.setdefault("cchardet", types.ModuleType("cchardet"))


def check_config(args: argparse.Namespace) -> int:
    """Print every problem of the configuration file to stderr, one per line.

    Returns exit code 0 if the file is valid, otherwise 2.
    """
    from ..config.agent import ConfigError, describe, load, passphrases

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
        for place in passphrases(config):
            print(f"{place}: note: a passphrase; a key that xdp-gossip keygen makes cannot be guessed")
    return OK
