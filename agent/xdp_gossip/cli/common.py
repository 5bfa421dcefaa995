# SPDX-License-Identifier: MIT
"""What all commands share: exit codes, the connection to an agent, and how results are printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from ..api.client import Client

#: Exit codes, as ``docs/cli.md`` lists them.
OK, FAILED, USAGE, UNREACHABLE, CONFLICT = 0, 1, 2, 3, 4

DEFAULT_SOCKET = "/run/xdp-gossip/api.sock"
DEFAULT_CONFIG = "/etc/xdp-gossip/agent.yml"

Handler = Callable[[argparse.Namespace], int]


class CommandError(Exception):
    """Ends a command: the text goes to stderr, ``status`` is the exit code."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


class Parser(argparse.ArgumentParser):
    """A parser whose command may take another program's command line behind ``--``."""

    takes_command = False

    def parse_known_args(  # type: ignore[override]  # of the forms that argparse declares, the one that it uses
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See argparse."""
        words = list(args or [])
        if not self.takes_command or "--" not in words:
            return super().parse_known_args(args, namespace)
        at = words.index("--")
        found, rest = super().parse_known_args(words[:at], namespace)
        found.command = words[at + 1 :]
        if not found.command:
            self.error("expected a command behind --")
        return found, rest


def connection_options() -> argparse.ArgumentParser:
    """The options that name an agent, as a parent parser; they may stand before or after the command."""
    parent = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parent.add_argument_group("which agent, and how to print")
    where = group.add_mutually_exclusive_group()
    where.add_argument("--socket", metavar="PATH", help=f"its Unix socket (default: {DEFAULT_SOCKET})")
    where.add_argument("--endpoint", metavar="URL", help="http://, https:// or unix:// address of its API")
    group.add_argument("--token-file", metavar="FILE", help="file with the API token, for --endpoint")
    group.add_argument("--ca-file", metavar="FILE", help="CA certificates to check an https endpoint against")
    group.add_argument("--json", action="store_true", help="print JSON")
    return parent


def read_token(args: argparse.Namespace) -> str | None:
    """The token for a TCP endpoint: from --token-file, else from the environment (XDP_GOSSIP_TOKEN)."""
    name = getattr(args, "token_file", None)
    if name is None:
        return os.environ.get("XDP_GOSSIP_TOKEN") or None
    try:
        with open(name, encoding="utf-8") as stream:
            token = stream.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--token-file {name}: expected a readable file with a token, got {error}", USAGE) from None
    if len(token.split()) != 1:
        raise CommandError(f"--token-file {name}: expected one word, got {len(token.split())}", USAGE)
    return token


def endpoint(args: argparse.Namespace) -> str:
    """The agent to talk to: --endpoint, --socket, XDP_GOSSIP_ENDPOINT, or the default socket."""
    if getattr(args, "endpoint", None):
        return str(args.endpoint)
    if getattr(args, "socket", None):
        return f"unix://{os.path.abspath(args.socket)}"
    return os.environ.get("XDP_GOSSIP_ENDPOINT") or f"unix://{DEFAULT_SOCKET}"


def call(args: argparse.Namespace, work: Callable[[Client], Awaitable[int]]) -> int:
    """Run ``work`` with a client of the chosen agent and return its exit code.

    Raises :class:`CommandError` for whatever goes wrong, with the fitting code.
    """
    import asyncio  # these two cost 200 ms, which --help need not pay

    from ..api import client as api

    async def run() -> int:
        try:
            client = api.Client(endpoint(args), token=read_token(args), ca_file=getattr(args, "ca_file", None))
        except ValueError as error:
            raise CommandError(str(error), USAGE) from None
        async with client:
            return await work(client)

    try:
        return asyncio.run(run())
    except api.Unreachable as error:
        raise CommandError(str(error), UNREACHABLE) from None
    except api.ApiError as error:
        status = CONFLICT if error.status == 412 else USAGE if error.status == 400 else FAILED
        raise CommandError(f"{error.message} ({error.code})", status) from None


def wants_json(args: argparse.Namespace) -> bool:
    """Whether --json was given, before or after the command."""
    return bool(getattr(args, "json", False))


def print_json(value: Any) -> None:
    """One JSON document on stdout, readable, ending in a newline."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def output(args: argparse.Namespace, value: Any, text: Callable[[], None]) -> None:
    """Print ``value`` as JSON when asked for, else call ``text``."""
    if wants_json(args):
        print_json(value)
    else:
        text()


def wait_for(text: str) -> str:
    """The type of --wait: all, majority or a number from 1."""
    if text in ("all", "majority") or (text.isascii() and text.isdigit() and 1 <= int(text) <= 999_999):
        return text
    raise argparse.ArgumentTypeError(f"expected all, majority or a number of members, got {text!r}")


def read_file(name: str) -> bytes:
    """The content of a file, of stdin for ``-``. Raises :class:`CommandError`."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise CommandError(f"{name}: expected a readable file, got {error.strerror}", USAGE) from None
