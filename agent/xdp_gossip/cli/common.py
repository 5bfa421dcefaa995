# SPDX-License-Identifier: MIT
"""Code that all commands share: exit codes, the connection to an agent, and the output of results."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from . import streams

if TYPE_CHECKING:
    from ..api.client import Client

#: Exit codes of the commands, listed in ``docs/cli.md``.
OK, FAILED, USAGE, UNREACHABLE, CONFLICT = 0, 1, 2, 3, 4
#: Exit codes after SIGINT, SIGPIPE and SIGTERM: 128 plus the signal number, as shells report them.
INTERRUPTED, NO_READER, TERMINATED = 130, 141, 143

#: Exit code -> ``code`` in the JSON error, for errors that do not come from the API.
_CODES = {FAILED: "failed", USAGE: "usage", UNREACHABLE: "unreachable", CONFLICT: "conflict"}

DEFAULT_SOCKET = "/run/xdp-gossip/api.sock"
DEFAULT_CONFIG = "/etc/xdp-gossip/agent.yml"

Handler = Callable[[argparse.Namespace], int]
T = TypeVar("T")


class CommandError(Exception):
    """An error that ends a command.

    The command prints ``text`` and the lines in ``more`` to stderr and exits with ``status``. With --json, the error
    also contains ``code`` (a word in snake_case) and ``details``.
    """

    def __init__(
        self, text: str, status: int = FAILED, code: str = "", *, more: Sequence[str] = (), **details: Any
    ) -> None:
        super().__init__("\n".join([text, *more]))
        self.lines = (text, *more)
        self.status = status
        self.code = code or _CODES.get(status, "failed")
        self.details = details


def read_token(args: argparse.Namespace) -> str | None:
    """Read the token for a TCP endpoint from --token-file, otherwise from the variable XDP_GOSSIP_TOKEN.

    Returns None if neither the option nor the variable is set.
    """
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
    """Return the agent's URL from --endpoint, otherwise --socket, otherwise XDP_GOSSIP_ENDPOINT, otherwise the default
    socket.
    """
    if getattr(args, "endpoint", None):
        return str(args.endpoint)
    if getattr(args, "socket", None):
        return f"unix://{os.path.abspath(args.socket)}"
    return os.environ.get("XDP_GOSSIP_ENDPOINT") or f"unix://{DEFAULT_SOCKET}"


def call(args: argparse.Namespace, work: Callable[[Client], Awaitable[int]], timeout: float = 30.0) -> int:
    """Run ``work`` with a client of the selected agent, and return the exit code that ``work`` returns.

    ``timeout`` is the time limit of each request, in seconds. Converts every error of the agent or the connection to a
    :class:`CommandError` with the exit code for this error.
    """
    import asyncio  # imported late: asyncio and the client take 200 ms, too long for --help

    from ..api import client as api

    async def run() -> int:
        try:
            ca_file = getattr(args, "ca_file", None)
            client = api.Client(endpoint(args), token=read_token(args), ca_file=ca_file, timeout=timeout)
        except ValueError as error:
            raise CommandError(str(error), USAGE) from None
        async with client:
            return await work(client)

    try:
        return asyncio.run(run())
    except api.Unreachable as error:
        more = {"request": error.request} if error.request else {}
        raise CommandError(str(error), UNREACHABLE, **more) from None
    except api.ApiError as error:
        status = CONFLICT if error.status == 412 else USAGE if error.status == 400 else FAILED
        raise CommandError(f"{error.message} ({error.code})", status, error.code, details=error.details) from None


def wants_json(args: argparse.Namespace) -> bool:
    """Return whether the option --json was given, before or after the command's name."""
    return bool(getattr(args, "json", False))


def print_json(value: Any) -> None:
    """Print ``value`` on stdout as indented JSON that ends in a newline."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)  # stdout cannot encode some characters of the value, so escape them
    sys.stdout.write(text + "\n")


def output(args: argparse.Namespace, value: Any, text: Callable[[], None]) -> None:
    """Print ``value`` as JSON if --json was given; otherwise call ``text``, which prints the value as text."""
    if wants_json(args):
        print_json(value)
    else:
        text()


def answer(args: argparse.Namespace, ask: Callable[[Client], Awaitable[T]], text: Callable[[T], None]) -> int:
    """Call ``ask`` and print its result: as JSON if --json was given, otherwise with ``text``.

    Returns the exit code.
    """

    async def work(client: Client) -> int:
        found = await ask(client)
        output(args, found, lambda: text(found))
        return OK

    return call(args, work)


def notice(args: argparse.Namespace, text: str) -> None:
    """Print an informational message to stderr, as JSON if --json was given."""
    streams.tell("notice", [text], wants_json(args))


def read_file(name: str) -> bytes:
    """Read a file, or stdin if ``name`` is ``-``. Raises :class:`CommandError`."""
    try:
        if name == "-":
            return sys.stdin.buffer.read()
        with open(name, "rb") as stream:
            return stream.read()
    except OSError as error:
        what = "standard input" if name == "-" else name
        raise CommandError(f"{what}: expected a readable file, got {error.strerror}", USAGE) from None
