# SPDX-License-Identifier: MIT
"""Entry point of the command line: the parser, the dispatch, and the one place where errors become exit codes."""

from __future__ import annotations

import argparse
import os
import sys

from .. import __version__
from . import agent, doctor, documents, live, nodes
from .common import FAILED, USAGE, CommandError, connection_options

_EPILOG = """\
exit codes: 0 done, 1 failed or not converged, 2 wrong usage or configuration, 3 agent unreachable,
4 version conflict. Without --socket or --endpoint the commands talk to /run/xdp-gossip/api.sock, or to
what XDP_GOSSIP_ENDPOINT (with XDP_GOSSIP_TOKEN) says."""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    common = connection_options()
    parser = argparse.ArgumentParser(
        prog="xdp-gossip",
        description="The node list and the configuration documents of a cluster, kept by gossip.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"xdp-gossip {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (agent, nodes, documents, live, doctor):
        module.register(commands, common)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(arguments)
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
