# SPDX-License-Identifier: MIT
"""The commands ``publish``, ``read``, ``delete``, ``documents``, ``history``, ``rollback``, ``request`` and
``verify``.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import getpass
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from ..core.interface import ProtocolError
from ..core.sealed import SEALED
from ..core.types import MAX_CONTENT_TYPE
from . import tables
from .common import FAILED, OK, USAGE, CommandError, answer, call, output, read_file, wants_json
from .parser import add_command, key, path, prefix, raw, seconds, some_text, version, wait_for
from .sealed import add_opening, add_sealing, opened, opener, sealed_value
from .signed import Draft, add_signing, check_former, check_signing, suffix_type, write_signed
from .text import escaped, printable

if TYPE_CHECKING:
    from ..api.client import Client

#: Longest wait, in seconds, that the agent accepts in one request. To wait longer than that, the command repeats the
#: request.
_ONE_WAIT = 60.0


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands of this module to the parser."""
    publish = add_command(
        commands,
        "publish",
        "publish a document",
        "Publish a document. Its value is text, a file or standard input. With --wait, the command ends when that many "
        "members have stored the document.",
        [
            "xdp-gossip publish app/motd --value 'hello, world'",
            "xdp-gossip publish app/config.yml --file config.yml --wait all",
            "make-config | xdp-gossip publish app/config.json - --if-absent",
            "xdp-gossip publish app/motd --value hello --sign-key ~/.ssh/id_ed25519 --cluster production",
            "xdp-gossip publish app/tls.key --file tls.key --sealed-for web-servers.pub --cluster production",
        ],
        common,
    )
    _add_key(publish)
    publish.add_argument("source", metavar="-", type=raw, nargs="?", choices=["-"], help="read the value from stdin")
    publish.add_argument("--value", metavar="TEXT", type=raw, help="the value as text")
    publish.add_argument("--file", metavar="FILE", type=path, help="read the value from FILE (- for stdin)")
    condition = publish.add_mutually_exclusive_group()
    text = "write only if the agent has this version of the document"
    condition.add_argument("--if-version", metavar="VERSION", type=version, help=text)
    condition.add_argument("--if-absent", action="store_true", help="write only if the document does not exist")
    kind = (
        "json, yaml, text, raw or a media type (default: as in the current version, else by the suffix of KEY or FILE)"
    )
    publish.add_argument("--content-type", metavar="TYPE", type=some_text, help=kind)
    publish.add_argument("--comment", metavar="TEXT", help="reason for the change, stored in the history")
    publish.add_argument(
        "--expires-in", metavar="SECONDS", type=seconds, help="delete the document everywhere after this time"
    )
    publish.add_argument(
        "--author", metavar="NAME", help="name put in front of the comment, if it is not that of the user"
    )
    add_sealing(publish)
    add_signing(publish)
    _add_wait(publish, "wait until this many members have stored the document: all, majority or a number", None)
    publish.set_defaults(handler=run_publish)

    read = add_command(
        commands,
        "read",
        "print a document's value",
        "Print the value of a document, byte for byte. With --json: all its properties, and the value in base64.",
        [
            "xdp-gossip read app/config.yml",
            "xdp-gossip read app/config.yml --output config.yml",
            "xdp-gossip read app/tls.key --open --output tls.key",
        ],
        common,
    )
    _add_key(read)
    text = "a former version, as listed by history"
    read.add_argument("--version", metavar="VERSION", type=version, dest="document_version", help=text)
    read.add_argument("--output", metavar="FILE", type=path, help="write the value to FILE (- for standard output)")
    add_opening(read)
    read.set_defaults(handler=run_read)

    delete = add_command(
        commands,
        "delete",
        "delete a document",
        "Delete a document everywhere. It is no error if the document does not exist.",
        ["xdp-gossip delete app/motd --comment 'not needed' --wait all"],
        common,
    )
    _add_key(delete)
    text = "delete only if the agent has this version of the document"
    delete.add_argument("--if-version", metavar="VERSION", type=version, help=text)
    delete.add_argument("--comment", metavar="TEXT", help="reason for the change, stored in the history")
    delete.add_argument(
        "--author", metavar="NAME", help="name put in front of the comment, if it is not that of the user"
    )
    add_signing(delete)
    _add_wait(delete, "wait until this many members know of the deletion: all, majority or a number", None)
    delete.set_defaults(handler=run_delete)

    documents = add_command(
        commands,
        "documents",
        "list the documents",
        "List the documents, or those whose keys begin with a prefix, without their values.",
        ["xdp-gossip documents", "xdp-gossip documents app/ --wide"],
        common,
    )
    documents.add_argument(
        "prefix",
        metavar="PREFIX",
        type=prefix,
        nargs="?",
        default="",
        help="list only documents whose keys begin with this text",
    )
    documents.set_defaults(handler=run_documents)

    history = add_command(
        commands,
        "history",
        "list the versions of a document",
        "List the versions of a document that the agent still has, the newest first.",
        ["xdp-gossip history app/config.yml --diff"],
        common,
    )
    _add_key(history)
    history.add_argument(
        "--diff", action="store_true", help="show the difference between each version and its predecessor"
    )
    history.set_defaults(handler=run_history)

    rollback = add_command(
        commands,
        "rollback",
        "publish a former version again",
        "Publish the content of a former version of a document again, as a new version.",
        ["xdp-gossip rollback app/config.yml 01a203e394af0000@198.18.0.11:8000"],
        common,
    )
    _add_key(rollback)
    rollback.add_argument("to", metavar="VERSION", type=version, help="a former version, as listed by history")
    text = "write only if the agent has this version of the document"
    rollback.add_argument("--if-version", metavar="VERSION", type=version, help=text)
    rollback.add_argument("--comment", metavar="TEXT", help="reason for the change, stored in the history")
    life = "delete the document everywhere after this time, or never (default: when VERSION would have expired)"
    rollback.add_argument("--expires-in", metavar="SECONDS", type=_life, help=life)
    add_signing(rollback)
    rollback.set_defaults(handler=run_rollback)

    request = add_command(
        commands,
        "request",
        "show the outcome of a write whose answer was lost",
        "Show the outcome of a write whose answer was lost. With --cancel, cancel the write if it has not taken "
        "effect yet.",
        ["xdp-gossip request 3f6c0d1e5a7b9c8d --cancel"],
        common,
    )
    request.add_argument("id", metavar="ID", type=some_text, help="the id from the write's error message")
    request.add_argument("--cancel", action="store_true", help="cancel the write, unless it has taken effect")
    request.set_defaults(handler=run_request)

    verify = add_command(
        commands,
        "verify",
        "check that the members have stored a document",
        "Check that the members have stored a document, or have deleted it; without KEY, check that all members have "
        "the same documents. Exit code 1: the condition is not met within the time limit.",
        [
            "xdp-gossip verify",
            "xdp-gossip verify app/config.yml --file config.yml --applied --timeout 30",
            "xdp-gossip verify app/motd --deleted --wait majority",
        ],
        common,
    )
    text = "document key; if omitted, compare the complete state"
    verify.add_argument("key", metavar="KEY", type=key, nargs="?", help=text)
    text = "version that members must have stored"
    verify.add_argument("--version", metavar="VERSION", type=version, dest="document_version", help=text)
    content = verify.add_mutually_exclusive_group()
    text = "sha256:HEX of the value; without KEY, a documents digest"
    content.add_argument("--digest", metavar="DIGEST", type=some_text, help=text)
    content.add_argument("--file", metavar="FILE", type=path, help="file with the value that members must have stored")
    content.add_argument("--deleted", action="store_true", help="check that no member has the document")
    verify.add_argument(
        "--applied", action="store_true", help="also require that the members' rendered files use the document"
    )
    _add_wait(verify, "number of members that must meet the condition: all, majority or a number", "all")
    verify.set_defaults(handler=run_verify)


def _life(text: str) -> float | Literal["never"]:
    return "never" if text == "never" else seconds(text)


def _add_key(parser: argparse.ArgumentParser) -> None:
    text = "key of the document, 1 to 512 bytes; / separates segments"
    parser.add_argument("key", metavar="KEY", type=key, help=text)


def _add_wait(parser: argparse.ArgumentParser, text: str, default: str | None) -> None:
    parser.add_argument("--wait", metavar="N", type=wait_for, default=default, help=text)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=30.0 if default is None else 5.0,
        help="longest time to wait for the members' confirmations (default: %(default)g)",
    )


def run_publish(args: argparse.Namespace) -> int:
    """Publish a document. With --wait, wait until the required number of members have stored the document."""
    given = [source for source in (args.source, args.value, args.file) if source is not None]
    if len(given) != 1:
        raise CommandError(f"publish: expected one of --value, --file and -, got {len(given) or 'none'}", USAGE)
    if args.value is not None:
        value = args.value.encode("utf-8", "surrogateescape")
    else:
        value = read_file("-" if args.file is None else args.file)
    author = args.author if args.author is not None else _user()
    signs = check_signing(args)
    if args.sealed_for is not None and args.cluster is None:
        raise CommandError("--sealed-for: expected --cluster NAME, the cluster for which it is sealed", USAGE)
    if args.sealed_for is None and args.config is not None:
        raise CommandError("--config: expected together with --sealed-for", USAGE)

    async def publish(client: Client) -> dict[str, Any]:
        conditions = {"if_version": args.if_version, "if_absent": args.if_absent}
        written, kind = value, args.content_type
        if args.sealed_for is not None:
            inner = kind or suffix_type(args.key, args.file)
            _check_content(args.key, value, inner)
            written, kind = await sealed_value(client, args, value, inner), SEALED
        if signs:
            kind = kind or suffix_type(args.key, args.file)
            draft = Draft(args.key, written, kind, comment=args.comment or "", expires_in=args.expires_in)
            return await write_signed(client, args, draft, **conditions, unless_isolated=args.wait is not None)
        return await client.publish(
            args.key,
            written,
            **conditions,
            content_type=kind,
            suffix=_suffix(args.file),
            author=author,
            comment=args.comment,
            expires_in=args.expires_in,
            unless_isolated=args.wait is not None,
        )

    async def work(client: Client) -> int:
        written = await publish(client)
        found = None
        if args.wait is not None:
            with _in_effect(written):
                found = await converge(client, args.wait, args.timeout, key=args.key, version=written["version"])
        report = {**written, "convergence": found} if found else written
        output(args, report, lambda: _print_written(written, found, args))
        return OK if found is None or found["converged"] else FAILED

    return call(args, work)


def _check_content(key: str, value: bytes, content_type: str) -> None:
    """Check a content as members do, which cannot check one that is sealed. Raises :class:`CommandError`."""
    from ..worker import content

    if content_type == SEALED:
        raise CommandError("--content-type: expected the type of the value that is sealed, got sealed", USAGE)
    try:
        content.check(key, value, content_type)
    except ProtocolError as error:
        raise CommandError(str(error), USAGE, error.code) from None


def _suffix(name: str | None) -> str | None:
    """Return the suffix of the file name ``name``; None if the API would reject the suffix."""
    suffix = os.path.splitext(name or "")[1]
    return suffix if suffix[1:].isalnum() and len(suffix.encode()) <= MAX_CONTENT_TYPE else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def _print_written(written: dict[str, Any], found: dict[str, Any] | None, args: argparse.Namespace) -> None:
    what = "unchanged" if not written["changed"] else "deleted" if written["deleted"] else "published"
    version = f"version {written['version']}" if written["version"] else "there is no such document"
    until = f", expires {written['expires']}" if written.get("expires") and not written["deleted"] else ""
    print(f"{printable(written['key'])}: {what}, {version}{until}")
    if found is not None:
        _print_convergence(found, args, deleted=written.get("deleted", True))


@contextlib.contextmanager
def _in_effect(written: dict[str, Any]) -> Iterator[None]:
    """Context manager for the wait after a write.

    If the wait fails, the error message also says that the write has taken effect.
    """
    from ..api.client import ApiError, Unreachable  # imported late, see common.call

    state = f"version {written['version']} is in effect" if written["version"] else "there is no such document"
    told = f"document {written['key']!r}: {state}, but the wait for its confirmation failed"
    try:
        yield
    except ApiError as error:
        details = {**error.details, "version": written["version"]}
        raise ApiError(error.code, f"{told}: {error.message}", error.status, details) from None
    except Unreachable as error:
        raise Unreachable(error.endpoint, f"{error.why}; {told}", sent=error.sent) from None


async def converge(client: Client, wait: str, timeout: float, **question: Any) -> dict[str, Any]:
    """Ask the agent whether the members have stored a document, until the answer is yes or ``timeout`` seconds have
    passed.

    Each request to the agent waits at most ``_ONE_WAIT`` seconds, so a longer wait consists of several requests.
    Returns the last answer.
    """
    start = time.monotonic()
    while True:
        left = max(0.0, timeout - (time.monotonic() - start))
        found = await client.convergence(wait=wait, timeout=min(left, _ONE_WAIT), **question)
        if found["converged"] or left <= _ONE_WAIT:
            return {**found, "elapsed": round(time.monotonic() - start, 3)}


def _print_convergence(found: dict[str, Any], args: argparse.Namespace, *, deleted: bool) -> None:
    how = "deleted on" if deleted else "held by"
    print(f"{how} {found['confirmed']} of {found['members']} members after {found['elapsed']:.2f} s")
    absent = [f"{found[state]} {state}" for state in ("dead", "agent_down") if found.get(state)]
    if absent:
        print(f"of {found['known']} known members, {' and '.join(absent)}")
    behind = [result for result in found["results"] if result["reason"]]
    if behind:
        rows = [[row["name"], tables.address(row), row["state"], row["version"], row["reason"]] for row in behind]
        tables.show(("name", "address", "state", "version", "reason"), rows, args)


def run_read(args: argparse.Namespace) -> int:
    """Print the raw value of a document; with --json, the document with its value in base64."""

    own = opener(args)

    async def work(client: Client) -> int:
        if wants_json(args) or own is not None:
            found = await client.document(args.key, args.document_version)
            if own is not None:
                found = opened(own, found)
            if wants_json(args):
                output(args, found, lambda: None)
            else:
                _write(base64.b64decode(found["value_base64"]), args.output, 0o600)
            return OK
        value, _headers = await client.read(args.key, args.document_version)
        _write(value, args.output)
        return OK

    return call(args, work)


def _write(value: bytes, name: str | None, mode: int = 0o666) -> None:
    if name is None or name == "-":
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        return
    with open(name, "wb", opener=lambda path, flags: os.open(path, flags, mode)) as stream:
        stream.write(value)


def run_delete(args: argparse.Namespace) -> int:
    """Delete a document. Returns exit code 0 even if the document did not exist."""
    signs = check_signing(args)

    async def delete(client: Client) -> dict[str, Any]:
        conditions = {"if_version": args.if_version, "unless_isolated": args.wait is not None}
        if signs:
            draft = Draft(args.key, b"", "raw", deleted=True, comment=args.comment or "")
            return await write_signed(client, args, draft, **conditions)
        author = args.author if args.author is not None else _user()
        return await client.delete(args.key, author=author, comment=args.comment, **conditions)

    async def work(client: Client) -> int:
        written = await delete(client)
        found = None
        if args.wait is not None:
            version = written["version"]
            with _in_effect(written):
                found = await converge(client, args.wait, args.timeout, key=args.key, version=version, deleted=True)
        report = {**written, "convergence": found} if found else written
        output(args, report, lambda: _print_written(written, found, args))
        return OK if found is None or found["converged"] else FAILED

    return call(args, work)


def run_documents(args: argparse.Namespace) -> int:
    """List the documents."""

    def text(found: dict[str, Any]) -> None:
        shown = ("key", "version", "size", "content_type", "published_at")
        rows = [[*(entry[name] for name in shown), tables.author(entry)] for entry in found["documents"]]
        tables.show(("key", "version", "size", "type", "published", "author"), rows, args)

    return answer(args, lambda client: client.documents(args.prefix), text)


def run_history(args: argparse.Namespace) -> int:
    """List the versions of a document, newest first."""

    def text(found: dict[str, Any]) -> None:
        rows = []
        for entry in found["versions"]:
            unseen = " (overwritten by an author who had not seen it)" if entry["conflict"] else ""
            size = "deleted" if entry["deleted"] else entry["size"]
            author = tables.author(entry)
            rows.append([entry["version"], entry["published_at"], size, author, entry["comment"] + unseen])
        tables.show(("version", "published", "size", "author", "comment"), rows, args)
        for entry in found["versions"]:
            if "diff" in entry:
                diff = entry["diff"] if entry["diff"] is not None else f"{entry['version']}: no text, or too long"
                print("\n".join(escaped(line) for line in diff.splitlines()))

    return answer(args, lambda client: client.history(args.key, diff=args.diff), text)


def run_rollback(args: argparse.Namespace) -> int:
    """Publish the value of an earlier version again."""
    said = {"author": _user() or "", "comment": args.comment or ""}
    signs = check_signing(args)

    async def back(client: Client) -> dict[str, Any]:
        if not signs:
            return await client.rollback(
                args.key, args.to, if_version=args.if_version, expires_in=args.expires_in, **said
            )
        former = await client.document(args.key, args.to)
        if former["expires"] and args.expires_in is None:
            raise CommandError("rollback: VERSION has a time of expiry: expected --expires-in with --sign-key", USAGE)
        seconds = args.expires_in if isinstance(args.expires_in, float) else None
        value = base64.b64decode(former["value_base64"])
        check_former(args, former, value)
        comment = args.comment or f"rollback to {args.to}"
        draft = Draft(args.key, value, former["content_type"], comment=comment, expires_in=seconds)
        return await write_signed(client, args, draft, if_version=args.if_version)

    return answer(args, back, lambda written: _print_written(written, None, args))


def run_request(args: argparse.Namespace) -> int:
    """Show the outcome of a write. Returns exit code 0 if the write has taken effect, otherwise 1."""

    async def work(client: Client) -> int:
        found = await (client.cancel_request(args.id) if args.cancel else client.find_request(args.id))
        told = {"done": "it took effect", "pending": "at work", "cancelled": "cancelled, it does not take effect"}
        text = told.get(found["state"], f"failed, nothing was done ({printable((found['answer'] or {}).get('code'))})")
        output(args, found, lambda: print(f"request {escaped(args.id)}: {text}"))
        return OK if found["state"] == "done" else FAILED

    return call(args, work)


def run_verify(args: argparse.Namespace) -> int:
    """Check whether the required number of members have stored the document.

    If fewer members have stored the document, prints the members that lack it, and returns exit code 1.
    """
    digest = args.digest
    if args.file is not None:
        digest = f"sha256:{hashlib.sha256(read_file(args.file)).hexdigest()}"
    if args.key is None and (args.document_version or args.file is not None or args.deleted or args.applied):
        raise CommandError("verify: expected KEY with --version, --file, --deleted or --applied, got none", USAGE)

    async def work(client: Client) -> int:
        found = await converge(
            client,
            args.wait,
            args.timeout,
            key=args.key,
            version=args.document_version,
            digest=digest,
            deleted=args.deleted,
            applied=args.applied,
        )
        output(args, found, lambda: _print_convergence(found, args, deleted=args.deleted))
        return OK if found["converged"] else FAILED

    return call(args, work)
