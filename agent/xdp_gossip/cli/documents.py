# SPDX-License-Identifier: MIT
"""``publish``, ``read``, ``delete``, ``documents``, ``history``, ``rollback``, ``request`` and ``verify``."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from ..core.types import MAX_CONTENT_TYPE
from . import tables
from .common import FAILED, OK, USAGE, CommandError, call, output, read_file, wait_for, wants_json

if TYPE_CHECKING:
    from ..api.client import Client

#: The agent bounds one waiting request to this; longer waits are asked for again.
_ONE_WAIT = 60.0


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the parser."""
    publish = commands.add_parser("publish", help="publish a document", parents=[common])
    publish.add_argument("key", metavar="KEY")
    publish.add_argument("source", metavar="-", nargs="?", choices=["-"], help="read the value from stdin")
    publish.add_argument("--value", metavar="TEXT", help="the value itself")
    publish.add_argument("--file", metavar="FILE", help="read the value from FILE (- for stdin)")
    condition = publish.add_mutually_exclusive_group()
    condition.add_argument("--if-version", metavar="VERSION", help="only when the agent holds this version")
    condition.add_argument("--if-absent", action="store_true", help="only when there is no such document")
    kind = "json, yaml, text, raw or a media type (default: as it is held, else by the suffix of KEY or FILE)"
    publish.add_argument("--content-type", metavar="TYPE", help=kind)
    publish.add_argument("--comment", metavar="TEXT", help="why, for the history")
    publish.add_argument("--expires-in", metavar="SECONDS", type=float, help="delete it everywhere after so long")
    publish.add_argument("--author", metavar="NAME", help="who, for the history (default: the user)")
    _add_wait(publish, "wait until so many members hold it: all, majority or a number", None)
    publish.set_defaults(handler=run_publish)

    read = commands.add_parser("read", help="print a document's value", parents=[common])
    read.add_argument("key", metavar="KEY")
    read.add_argument("--version", metavar="VERSION", dest="document_version", help="a former one, that history lists")
    read.add_argument("--output", metavar="FILE", help="write the value to FILE")
    read.set_defaults(handler=run_read)

    delete = commands.add_parser("delete", help="delete a document", parents=[common])
    delete.add_argument("key", metavar="KEY")
    delete.add_argument("--if-version", metavar="VERSION", help="only when the agent holds this version")
    delete.add_argument("--comment", metavar="TEXT", help="why, for the history")
    delete.add_argument("--author", metavar="NAME", help="who, for the history (default: the user)")
    _add_wait(delete, "wait until so many members know of it: all, majority or a number", None)
    delete.set_defaults(handler=run_delete)

    documents = commands.add_parser("documents", help="list the documents", parents=[common])
    documents.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="beginning of the keys")
    documents.set_defaults(handler=run_documents)

    history = commands.add_parser("history", help="list the versions of a document", parents=[common])
    history.add_argument("key", metavar="KEY")
    history.add_argument("--diff", action="store_true", help="show what each version changed")
    history.set_defaults(handler=run_history)

    rollback = commands.add_parser("rollback", help="publish a former version again", parents=[common])
    rollback.add_argument("key", metavar="KEY")
    rollback.add_argument("to", metavar="VERSION", help="one that history lists")
    rollback.add_argument("--if-version", metavar="VERSION", help="only when the agent holds this version")
    rollback.add_argument("--comment", metavar="TEXT", help="why, for the history")
    life = "delete it everywhere after so long, or never (default: when VERSION was to end)"
    rollback.add_argument("--expires-in", metavar="SECONDS", type=_life, help=life)
    rollback.set_defaults(handler=run_rollback)

    request = commands.add_parser("request", help="what came of a write whose answer was lost", parents=[common])
    request.add_argument("id", metavar="ID", help="as the error message of the write names it")
    request.add_argument("--cancel", action="store_true", help="see to it that it never takes effect, if it has not")
    request.set_defaults(handler=run_request)

    verify = commands.add_parser("verify", help="check that the fleet holds it", parents=[common])
    verify.add_argument("key", metavar="KEY", nargs="?", help="default: everything that the agent asked holds")
    verify.add_argument("--version", metavar="VERSION", dest="document_version", help="the version to be held")
    content = verify.add_mutually_exclusive_group()
    content.add_argument("--digest", metavar="DIGEST", help="sha256:HEX of the value, or without KEY a state digest")
    content.add_argument("--file", metavar="FILE", help="the value to be held")
    content.add_argument("--deleted", action="store_true", help="the document is to be gone everywhere")
    verify.add_argument("--applied", action="store_true", help="their rendered files have to have taken it over, too")
    _add_wait(verify, "how many members have to hold it: all, majority or a number", "all")
    verify.set_defaults(handler=run_verify)


def _life(text: str) -> float | Literal["never"]:
    return "never" if text == "never" else float(text)


def _add_wait(parser: argparse.ArgumentParser, text: str, default: str | None) -> None:
    parser.add_argument("--wait", metavar="N", type=wait_for, default=default, help=text)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=30.0 if default is None else 5.0,
        help="(default: %(default)s)",
    )


def run_publish(args: argparse.Namespace) -> int:
    """Publish, and wait for the fleet when asked to."""
    given = [source for source in (args.source, args.value, args.file) if source is not None]
    if len(given) != 1:
        raise CommandError(f"publish: expected one of --value, --file and -, got {len(given) or 'none'}", USAGE)
    value = args.value.encode("utf-8", "surrogateescape") if args.value is not None else read_file(args.file or "-")
    author = args.author if args.author is not None else _user()

    async def work(client: Client) -> int:
        written = await client.publish(
            args.key,
            value,
            if_version=args.if_version,
            if_absent=args.if_absent,
            content_type=args.content_type,
            suffix=_suffix(args.file),
            author=author,
            comment=args.comment,
            expires_in=args.expires_in,
        )
        found = None
        if args.wait is not None:
            found = await converge(client, args.wait, args.timeout, key=args.key, version=written["version"])
        output(args, {**written, "convergence": found} if found else written, lambda: _print_written(written, found))
        return OK if found is None or found["converged"] else FAILED

    return call(args, work)


def _suffix(name: str | None) -> str | None:
    """The suffix of a file's name, where it may stand for a content type."""
    suffix = os.path.splitext(name or "")[1]
    return suffix if suffix[1:].isalnum() and len(suffix.encode()) <= MAX_CONTENT_TYPE else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def _print_written(written: dict[str, Any], found: dict[str, Any] | None) -> None:
    what = "unchanged" if not written["changed"] else "deleted" if written["deleted"] else "published"
    version = f"version {written['version']}" if written["version"] else "there is no such document"
    until = f", expires {written['expires']}" if written.get("expires") and not written["deleted"] else ""
    print(f"{tables.printable(written['key'])}: {what}, {version}{until}")
    if found is not None:
        _print_convergence(found, deleted=written.get("deleted", True))


async def converge(client: Client, wait: str, timeout: float, **question: Any) -> dict[str, Any]:
    """Ask whether the fleet holds it until it does or ``timeout`` seconds have passed, in bounded requests."""
    start = time.monotonic()
    while True:
        left = max(0.0, timeout - (time.monotonic() - start))
        found = await client.convergence(wait=wait, timeout=min(left, _ONE_WAIT), **question)
        if found["converged"] or left <= _ONE_WAIT:
            return {**found, "elapsed": round(time.monotonic() - start, 3)}


def _print_convergence(found: dict[str, Any], deleted: bool = False) -> None:
    how = "deleted on" if deleted else "held by"
    print(f"{how} {found['confirmed']} of {found['members']} members after {found['elapsed']:.2f} s")
    behind = [result for result in found["results"] if result["reason"]]
    if behind:
        rows = [[row["name"], tables.address(row), row["state"], row["version"], row["reason"]] for row in behind]
        tables.show(("name", "address", "state", "version", "reason"), rows)


def run_read(args: argparse.Namespace) -> int:
    """Print the value as it is, or DOC with the value in base64 as JSON."""

    async def work(client: Client) -> int:
        if wants_json(args):
            output(args, await client.document(args.key, args.document_version), lambda: None)
            return OK
        value, _headers = await client.read(args.key, args.document_version)
        _write(value, args.output)
        return OK

    return call(args, work)


def _write(value: bytes, name: str | None) -> None:
    if name is None or name == "-":
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        return
    with open(name, "wb") as stream:
        stream.write(value)


def run_delete(args: argparse.Namespace) -> int:
    """Delete a document; 0 also when there was none."""

    async def work(client: Client) -> int:
        author = args.author if args.author is not None else _user()
        written = await client.delete(args.key, if_version=args.if_version, author=author, comment=args.comment)
        found = None
        if args.wait is not None:
            version = written["version"]
            found = await converge(client, args.wait, args.timeout, key=args.key, version=version, deleted=True)
        output(args, {**written, "convergence": found} if found else written, lambda: _print_written(written, found))
        return OK if found is None or found["converged"] else FAILED

    return call(args, work)


def run_documents(args: argparse.Namespace) -> int:
    """List the documents."""

    async def work(client: Client) -> int:
        found = await client.documents(args.prefix)
        rows = [
            [
                entry["key"],
                entry["version"],
                entry["size"],
                entry["content_type"],
                entry["published_at"],
                entry["author"],
            ]
            for entry in found["documents"]
        ]
        columns = ("key", "version", "size", "type", "published", "author")
        output(args, found, lambda: tables.show(columns, rows))
        return OK

    return call(args, work)


def run_history(args: argparse.Namespace) -> int:
    """List the versions of a document, newest first."""

    async def work(client: Client) -> int:
        found = await client.history(args.key, diff=args.diff)
        rows = [
            [
                entry["version"],
                entry["published_at"],
                "deleted" if entry["deleted"] else entry["size"],
                entry["author"],
                f"{entry['comment']} (lost: not read by who wrote the next)" if entry["conflict"] else entry["comment"],
            ]
            for entry in found["versions"]
        ]
        columns = ("version", "published", "size", "author", "comment")
        output(args, found, lambda: _print_history(columns, rows, found["versions"]))
        return OK

    return call(args, work)


def _print_history(columns: tuple[str, ...], rows: list[list[Any]], versions: list[dict[str, Any]]) -> None:
    tables.show(columns, rows)
    for entry in versions:
        if "diff" in entry:
            text = entry["diff"] if entry["diff"] is not None else f"{entry['version']}: no text, or too long"
            print("\n".join(tables.printable(line) for line in text.splitlines()))


def run_rollback(args: argparse.Namespace) -> int:
    """Publish again what a former version held."""

    async def work(client: Client) -> int:
        written = await client.rollback(
            args.key,
            args.to,
            if_version=args.if_version,
            author=_user() or "",
            comment=args.comment or "",
            expires_in=args.expires_in,
        )
        output(args, written, lambda: _print_written(written, None))
        return OK

    return call(args, work)


def run_request(args: argparse.Namespace) -> int:
    """0 when the write has taken effect, else 1."""

    async def work(client: Client) -> int:
        found = await (client.cancel_request(args.id) if args.cancel else client.find_request(args.id))
        told = {"done": "it took effect", "pending": "at work", "cancelled": "cancelled, it does not take effect"}
        text = told.get(found["state"], f"failed, nothing was done ({(found['answer'] or {}).get('code')})")
        output(args, found, lambda: print(f"request {args.id}: {text}"))
        return OK if found["state"] == "done" else FAILED

    return call(args, work)


def run_verify(args: argparse.Namespace) -> int:
    """0 when as many members as asked for hold it, else 1 with the others listed."""
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
        output(args, found, lambda: _print_convergence(found, args.deleted))
        return OK if found["converged"] else FAILED

    return call(args, work)
