# SPDX-License-Identifier: MIT
"""Entry point of the command line: builds the parser, runs the command, and maps errors to exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from .. import __version__
from . import streams
from .common import FAILED, INTERRUPTED, NO_READER, USAGE, CommandError
from .parser import Parser, connection_options

_EPILOG = """\
Without --socket or --endpoint the commands talk to /run/xdp-gossip/api.sock, or to what XDP_GOSSIP_ENDPOINT (with
XDP_GOSSIP_TOKEN) says.

exit codes: 0 done, 1 failed or not converged, 2 wrong usage or configuration, 3 agent unreachable, 4 version conflict,
130 interrupted, 141 the reader of the output ended.

examples:
  xdp-gossip members
  xdp-gossip publish app/config.yml --file config.yml --wait all
  xdp-gossip COMMAND --help"""


#: Modules that define the commands, in the order in which the help text lists them.
_COMMANDS = (
    "agent",
    "nodes",
    "documents",
    "watch",
    "live",
    "dataplane",
    "doctor",
    "rendered",
    "token",
    "keygen",
    "sealed",
    "audit",
    "completion",
)
#: Commands that run as services: command -> modules to load. A service runs for months, so it loads only these modules,
#: to save memory. Unexpected exceptions of a service are logged with a traceback.
_SERVICES = {"agent": ("agent",), "files-helper": ("rendered",)}


def build_parser(modules: Sequence[str] = _COMMANDS) -> Parser:
    """Build the command line parser with the commands of ``modules`` (default: all)."""
    common = connection_options()
    parser = Parser(
        prog="xdp-gossip",
        description="Run the agent of a gossip cluster, or query and change the cluster through a running agent.",
        epilog=_EPILOG,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"xdp-gossip {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in modules:
        importlib.import_module(f".{name}", __package__).register(commands, common)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    service = bool(words) and words[0] in _SERVICES
    try:
        streams.prepare(service=service)
        status = _run(words, _SERVICES[words[0]] if service else _COMMANDS)
        streams.finish()
        return status
    except KeyboardInterrupt:
        status, failure = INTERRUPTED, None
    except BrokenPipeError:
        # The reader of stdout has closed the pipe (for example ``| head``), so no message is printed.
        status, failure = NO_READER, None
    except CommandError as error:
        status, failure = error.status, error
    except OSError as error:
        text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None)
        status, failure = FAILED, CommandError(text)
    except Exception as error:
        if service or os.environ.get("XDP_GOSSIP_TRACEBACK"):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}, line {place.lineno}"
        text = f"{type(error).__name__}: {error} ({where}): no agent's answer, or a fault of this program"
        failure = CommandError(f"{text}; XDP_GOSSIP_TRACEBACK=1 shows more", FAILED, "internal_error")
        status = FAILED
    try:
        streams.finish()
    except OSError:
        pass  # report the error of the command, not that of flushing stdout
    if failure is not None:
        # Problems of a configuration begin with the file's name, as compiler messages do, so the prefix "xdp-gossip: "
        # is omitted.
        prefix = "" if failure.code == "configuration" else "xdp-gossip: "
        streams.tell("error", failure.lines, _asks_for_json(words), prefix, code=failure.code, **failure.details)
    return status


def _run(words: list[str], modules: Sequence[str]) -> int:
    try:
        args = build_parser(modules).parse_args(words)
    except SystemExit as ended:  # --help, --version
        return int(ended.code or 0)
    return int(args.handler(args))


def _asks_for_json(words: list[str]) -> bool:
    """Return whether ``words`` contain --json or an abbreviation of it.

    The parser is not used, because it may reject ``words``.
    """
    own = words[: words.index("--")] if "--" in words else words
    return any(len(word) > 2 and "--json".startswith(word) for word in own)


__all__ = ["USAGE", "build_parser", "main"]
