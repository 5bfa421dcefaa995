# SPDX-License-Identifier: MIT
"""The command ``audit``: shows the records of changes and denials in the agent's audit file."""

from __future__ import annotations

import argparse
import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

from ..core.shown import shown
from . import tables
from .common import DEFAULT_CONFIG, FAILED, OK, USAGE, CommandError, notice, output
from .parser import add_command, path, some_text
from .parser import key as document_key

_AGE = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: Maximum bytes of one line. A record of 64 keys is shorter.
_MOST_LINE = 1 << 20


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``audit`` to the parser."""
    audit = add_command(
        commands,
        "audit",
        "show who changed what, and who was denied what",
        "Show the records in the audit file of this host's agent and in its former files, the oldest first. Each "
        "record names the client, where it came from, the operation, the keys with their versions before and after, "
        "and the outcome. Only root and the agent's user can read the file.",
        [
            "xdp-gossip audit --since 1d",
            "xdp-gossip audit --who ci --outcome forbidden",
            "xdp-gossip audit --key app/config.yml --json",
        ],
        common,
    )
    text = f"configuration that names the audit file (default: {DEFAULT_CONFIG})"
    audit.add_argument("--config", metavar="FILE", type=path, default=DEFAULT_CONFIG, help=text)
    audit.add_argument("--file", metavar="FILE", type=path, help="the audit file, instead of that of the configuration")
    audit.add_argument("--key", metavar="KEY", type=document_key, help="only records of this document")
    audit.add_argument("--who", metavar="NAME", type=some_text, help="only records of this token or user:NAME")
    text = "only records with this outcome: done, unchanged, repeated, or an error code such as forbidden"
    audit.add_argument("--outcome", metavar="WORD", type=some_text, help=text)
    text = "only records after TIME: 2026-11-30, 2026-11-30T08:00:00Z, or an age such as 90s, 30m, 12h, 7d"
    audit.add_argument("--since", metavar="TIME", type=moment, help=text)
    audit.set_defaults(handler=run)


def moment(word: str) -> datetime.datetime:
    """Argument type for a point in time: an ISO 8601 date or time (without offset: UTC), or an age."""
    now = datetime.datetime.now(datetime.timezone.utc)
    age = _AGE.fullmatch(word)
    if age is not None:
        try:
            return now - datetime.timedelta(seconds=int(age[1]) * _UNITS[age[2]])
        except OverflowError:
            return datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)
    try:
        found = datetime.datetime.fromisoformat(word[:-1] + "+00:00" if word.endswith("Z") else word)
    except ValueError:
        wanted = "a time such as 2026-11-30T08:00:00Z, or an age such as 12h"
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {shown(word)}") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.timezone.utc)


def run(args: argparse.Namespace) -> int:
    """Print the selected records."""
    name = args.file if args.file is not None else _configured(args.config)
    records = [record for record in _records(args, name) if _is_wanted(record, args)]
    output(args, {"file": name, "records": records}, lambda: _print(records, args))
    return OK


def _configured(config: str) -> str:
    from ..config.agent import understood

    found, problems = understood(config)
    if found is None:
        raise CommandError(problems[0], USAGE, more=problems[1:])
    if not found.api.audit_file:
        raise CommandError(f"{config}: expected api.audit_file, which names the audit file, got none", USAGE)
    return found.api.audit_file


def _records(args: argparse.Namespace, name: str) -> Iterator[dict[str, Any]]:
    """Yield the records of the file ``name`` and of its former files, the oldest first."""
    from ..api.auditfile import files_of

    there = damaged = 0
    for one in files_of(name):
        try:
            with open(one, "rb") as stream:
                there += 1
                while line := stream.readline(_MOST_LINE):
                    record = _parsed(line)
                    if record is None:
                        damaged += 1
                    else:
                        yield record
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CommandError(f"{one}: expected a readable audit file, got {error.strerror}", FAILED) from None
    if not there:
        raise CommandError(f"{name}: expected an audit file, got none; the agent creates it with its first record")
    if damaged:
        notice(args, f"{name}: {damaged} lines are no records and were left out")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        zoned = datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00")).tzinfo is not None
        texts = (record["who"], record["from"], record["operation"], record["target"], record["outcome"])
        named = [(one["key"], one["before"], one["after"]) for one in record["documents"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    sound = zoned and all(isinstance(text, str) for text in (*texts, *(key for key, *_ in named)))
    return record if sound else None


def _is_wanted(record: dict[str, Any], args: argparse.Namespace) -> bool:
    if args.since is not None:
        time = datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00"))
        if time < args.since:
            return False
    return (
        (args.who is None or record["who"] == args.who)
        and (args.outcome is None or record["outcome"] == args.outcome)
        and (args.key is None or any(one["key"] == args.key for one in record["documents"]))
    )


def _print(records: list[dict[str, Any]], args: argparse.Namespace) -> None:
    rows: list[list[object]] = []
    for record in records:
        head = [record["time"], record["who"], record["from"], record["operation"], record["outcome"]]
        for one in record["documents"] or [{"key": record["target"], "before": None, "after": None}]:
            rows.append([*head, one["key"], one["before"], one["after"]])
    tables.show(("time", "who", "from", "operation", "outcome", "key or target", "before", "after"), rows, args)
