# SPDX-License-Identifier: MIT
"""The command ``sealing-key``, and sealed documents for the commands ``publish`` and ``read``."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.sealed import SEALED, Recipient, fingerprint
from ..core.shown import shown
from .common import DEFAULT_CONFIG, USAGE, CommandError, answer
from .parser import add_command, path, some_text
from .text import printable

if TYPE_CHECKING:
    from ..api.client import Client


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``sealing-key`` to the parser."""
    sealing_key = add_command(
        commands,
        "sealing-key",
        "show this host's public key for sealed documents",
        "Show the public key with which documents are sealed for the host of the agent, as a line for a file of public "
        "keys. The private key never leaves the host.",
        ["xdp-gossip sealing-key", "xdp-gossip sealing-key > web1.pub"],
        common,
    )
    sealing_key.set_defaults(handler=run_sealing_key)


def run_sealing_key(args: argparse.Namespace) -> int:
    """Print the public key of the agent's host."""
    return answer(args, lambda client: client.sealing_key(), lambda found: print(printable(found["public_key"])))


def add_sealing(parser: argparse.ArgumentParser) -> None:
    """Add the options with which a command seals what it writes."""
    text = "seal the value for the public keys in FILE, one a line, as sealing-key prints them; needs --cluster"
    parser.add_argument("--sealed-for", metavar="FILE", type=path, help=text)
    text = "with --sealed-for: configuration file of this host's agent, whose key tells whether the value is already"
    text += f" published (default: {DEFAULT_CONFIG})"
    parser.add_argument("--config", metavar="FILE", type=path, help=text)


def add_opening(parser: argparse.ArgumentParser) -> None:
    """Add the options with which a command opens a sealed document."""
    text = "open a sealed document with the key of this host, which only root and the agent may read"
    parser.add_argument("--open", action="store_true", help=text)
    text = f"with --open: configuration file of this host's agent (default: {DEFAULT_CONFIG})"
    parser.add_argument("--config", metavar="FILE", type=path, help=text)
    text = "with --open: another private key, together with --cluster"
    parser.add_argument("--key-file", metavar="FILE", type=path, help=text)
    text = "with --key-file: name of the cluster for which the document was sealed"
    parser.add_argument("--cluster", metavar="NAME", type=some_text, help=text)


class Opener(NamedTuple):
    """The cluster, and a private key of this host."""

    cluster: str
    private_key: bytes


def opener(args: argparse.Namespace) -> Opener | None:
    """Return what opens documents for ``read``; None without --open. Raises :class:`CommandError`."""
    from ..sealing.keys import KeyFileError, load

    given = [option for option in ("config", "key_file", "cluster") if getattr(args, option) is not None]
    if not args.open:
        if given:
            raise CommandError(f"--{given[0].replace('_', '-')}: expected together with --open", USAGE)
        return None
    if (args.key_file is None) != (args.cluster is None):
        raise CommandError("--key-file: expected both --key-file and --cluster, or neither", USAGE)
    if args.key_file is not None:
        cluster, name = args.cluster, Path(args.key_file)
    else:
        cluster, name = _configured(args.config or DEFAULT_CONFIG)
    try:
        return Opener(cluster, load(name))
    except FileNotFoundError:
        raise CommandError(f"{name}: there is no key of this host; the agent makes it when it starts") from None
    except KeyFileError as error:
        raise CommandError(str(error)) from None


def _configured(name: str) -> tuple[str, Path]:
    """The cluster and the key file in the configuration file ``name``. Raises :class:`CommandError`."""
    from ..config.agent import understood
    from ..sealing.keys import FILE

    config, problems = understood(name)
    if config is None:
        raise CommandError(problems[0], USAGE, "configuration")
    if not config.state_dir:
        raise CommandError(f"{name}: state_dir: expected a directory, because the key of the host is in it")
    return config.cluster, Path(config.state_dir) / FILE


def opened(own: Opener, document: dict[str, Any]) -> dict[str, Any]:
    """Return ``document``, as the API returned it, with the content and the type inside its envelope.

    Raises :class:`CommandError` if the document cannot be opened; a document that is not sealed stays as it is.
    """
    from ..sealing import envelope, hpke

    if document["content_type"] != SEALED:
        return document
    key = document["key"]
    try:
        found = envelope.open_envelope(own.cluster, key, base64.b64decode(document["value_base64"]), own.private_key)
    except envelope.NotRecipient as error:
        text = f"document {shown(key)}: {error}, and the key of this host is not among these"
        raise CommandError(text, code="not_recipient", recipients=list(error.names)) from None
    except (hpke.OpenError, ValueError) as error:
        raise CommandError(f"document {shown(key)}: cannot be opened: {error}", code="not_opened") from None
    value = base64.b64encode(found.content).decode()
    return {**document, "value_base64": value, "content_type": found.content_type}


async def sealed_value(client: Client, args: argparse.Namespace, value: bytes, content_type: str) -> bytes:
    """Seal ``value`` for the keys in the file --sealed-for. Returns the envelope.

    If this host can open the present version, and that has the same content, type and recipients, the present envelope
    is returned, so that nothing changes. Raises :class:`CommandError`.
    """
    from ..api.client import ApiError
    from ..sealing.envelope import seal
    from ..sealing.keys import KeyFileError, read_recipients

    try:
        recipients = read_recipients(args.sealed_for)
    except KeyFileError as error:
        raise CommandError(f"--sealed-for: {error}", USAGE) from None
    try:
        held = await client.document(args.key)
    except ApiError as error:
        if error.code != "document_not_found":
            raise
    else:
        wanted = [Recipient(one.name, fingerprint(one.raw)) for one in recipients]
        if _same(args.config, held, value, content_type, wanted):
            return base64.b64decode(held["value_base64"])
    try:
        return seal(args.cluster, args.key, value, content_type, recipients)
    except ValueError as error:
        raise CommandError(f"--sealed-for: {args.sealed_for}: {error}", USAGE) from None


def _same(
    config: str | None, held: dict[str, Any], value: bytes, content_type: str, recipients: list[Recipient]
) -> bool:
    """Whether this host can open ``held``, and finds this content, type and recipients in it."""
    about = held.get("sealed") or {}
    named = sorted((one["name"], one["key"]) for one in about.get("recipients") or ())
    if named != sorted((one.name, one.text) for one in recipients):
        return False
    try:
        own = opener(argparse.Namespace(open=True, config=config, key_file=None, cluster=None))
        found = opened(own, held) if own is not None else held
    except CommandError:  # this host is no recipient, or the user may not read its key
        return False
    return (found["content_type"], base64.b64decode(found["value_base64"])) == (content_type, value)
