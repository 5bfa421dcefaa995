# SPDX-License-Identifier: MIT
"""Entry point of the command line: the parser, the dispatch, and the one place where errors become exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__
from .common import FAILED, USAGE, CommandError, Parser, connection_options

_EPILOG = """\
exit codes: 0 done, 1 failed or not converged, 2 wrong usage or configuration, 3 agent unreachable,
4 version conflict. Without --socket or --endpoint the commands talk to /run/xdp-gossip/api.sock, or to
what XDP_GOSSIP_ENDPOINT (with XDP_GOSSIP_TOKEN) says."""


#: Modules of the commands, in the order of the help text.
_COMMANDS = ("agent", "nodes", "documents", "watch", "live", "dataplane", "doctor", "rendered")


def build_parser(modules: Sequence[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The command line: all of it, or the commands of some ``modules``."""
    common = connection_options()
    parser = argparse.ArgumentParser(
        prog="xdp-gossip",
        description="The node list and the configuration documents of a cluster, kept by gossip.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"xdp-gossip {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name in modules:
        importlib.import_module(f".{name}", __package__).register(commands, common)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    # The agent runs for months: it need not carry the other commands in memory.
    alone = {"agent": ("agent",), "files-helper": ("rendered",)}
    args = build_parser(alone.get(words[0], _COMMANDS) if words else _COMMANDS).parse_args(words)
    try:
        return int(args.handler(args))
    except CommandError as error:
        print(f"xdp-gossip: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away (| head): nothing to say, and no complaint at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print(f"xdp-gossip: {error}", file=sys.stderr)
        return FAILED


__all__ = ["USAGE", "build_parser", "main"]
