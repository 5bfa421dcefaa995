# SPDX-License-Identifier: MIT
"""The command ``keygen``: makes a key of a cluster."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .common import FAILED, OK, CommandError, output
from .parser import add_command, path


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``keygen`` to the parser."""
    keygen = add_command(
        commands,
        "keygen",
        "make a key of a cluster",
        "Make a random key of 256 bits, for secret_key_file or keys of agent.yml. Only the owner can read the new "
        "file. An existing file is never overwritten. Without FILE, the key is printed.",
        ["xdp-gossip keygen /etc/xdp-gossip/secret.key", "xdp-gossip keygen"],
        common,
    )
    keygen.add_argument("file", metavar="FILE", type=path, nargs="?", help="file to create")
    keygen.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Write a new key to a new file, or print it."""
    from ..wire.keys import generate

    key = generate()
    if args.file is None:
        output(args, {"key": key}, lambda: print(key))
        return OK
    _write(args.file, key)
    output(args, {"file": args.file}, lambda: print(f"{args.file}: written"))
    return OK


def _write(name: str, key: str) -> None:
    """Create the file ``name`` with ``key``. Raises ``CommandError``; then there is no new file."""
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        text = f"{name}: expected no such file, found one; a key is never overwritten, because members may use it"
        raise CommandError(text, FAILED) from None
    except OSError as error:
        raise CommandError(f"{name}: not written: {error.strerror}", FAILED) from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{key}\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        os.unlink(name)
        raise CommandError(f"{name}: not written: {error.strerror}", FAILED) from None
