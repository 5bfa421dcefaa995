# SPDX-License-Identifier: MIT
"""The command ``token``: makes a token of the API, or prints the hash of one, for ``api.tokens`` in ``agent.yml``."""

from __future__ import annotations

import argparse
from typing import Any

from .common import OK, USAGE, CommandError, output, read_file
from .parser import add_command, path


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``token`` to the parser."""
    token = add_command(
        commands,
        "token",
        "make a token of the API and its hash",
        "Make a random token of the API, and print the token and its hash. With --file, print only the hash of the "
        "token in the file. The hash belongs into api.tokens of agent.yml; only the client needs the token.",
        ["xdp-gossip token", "xdp-gossip token --file ci.token", "xdp-gossip token --json"],
        common,
    )
    text = "print the hash of the token in FILE; - for standard input. A token is never read from the command line"
    token.add_argument("--file", metavar="FILE", type=path, help=text)
    token.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print a new token and its hash, or the hash of a given token."""
    from ..config.access import hash_of, new_token

    given = _given(args.file) if args.file is not None else None
    token = new_token() if given is None else given
    found = {"hash": hash_of(token)} if given is not None else {"token": token, "hash": hash_of(token)}
    output(args, found, lambda: print("\n".join(f"{name + ':':<6} {value}" for name, value in found.items())))
    return OK


def _given(name: str) -> str:
    """Read the token in the file ``name``. An error does not show any part of the token."""
    from ..config.access import MIN_TOKEN, is_word

    where = "standard input" if name == "-" else name
    try:
        token = read_file(name).decode().strip()
    except UnicodeDecodeError:
        raise CommandError(f"{where}: expected a token in UTF-8", USAGE) from None
    if not token or not is_word(token):
        raise CommandError(f"{where}: expected one token of printable ASCII characters without a space", USAGE)
    if len(token) < MIN_TOKEN:
        text = f"{where}: expected a token of at least {MIN_TOKEN} random characters, got {len(token)}"
        raise CommandError(f"{text}: a shorter one could be found by trying; xdp-gossip token makes one", USAGE)
    return token
