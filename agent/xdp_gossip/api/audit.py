# SPDX-License-Identifier: MIT
"""Records who changed what over the API, and who was denied what.

A record goes to the logger ``xdp_gossip.audit`` and, if configured, to a file. It names the client, its source, the
operation, the keys with their versions before and after, and the outcome. It contains no content, token or comment.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web

from ..common.quiet import Quiet
from ..core.types import MAX_KEY
from .access import FORBIDDEN, identity_of
from .accounts import Peer
from .auditfile import AuditFile
from .connection import place_of
from .errors import to_fault

_log = logging.getLogger("xdp_gossip.audit")

_RECORD = "audit"
#: Maximum number of denials of one client that are recorded in ``_WINDOW`` seconds; the others are only counted.
#: Without the limit, a client that may only read could fill the file, and the records of changes would be rotated away.
MAX_DENIALS, _WINDOW = 100, 60.0
#: Maximum bytes of the records of one client in ``_WINDOW`` seconds, for requests that changed nothing: denials,
#: errors, and what was there already. The others are only counted, for the same reason. Such a record names at most
#: ``_MOST_NAMED`` documents, because a request that fails may name 64 keys of the maximum length.
MAX_IDLE_BYTES, _MOST_NAMED = 64 * 1024, 5
WITHHELD = "audit_withheld"
#: Maximum number of clients whose denials are counted separately.
_MOST_CLIENTS = 4096
#: Maximum number of keys of one record that the text for the log names.
_SHOWN = 5


class Version(NamedTuple):
    """A document that a request changes: its key, its version before and after, and who signed the version after.

    ``signer``: name of the signer, or the fingerprint of a key without a name; None if the version is not signed.
    """

    key: str
    before: str | None = None
    after: str | None = None
    signer: str | None = None


@dataclass
class Record:
    """What is known of one request. Handlers fill in ``documents`` and ``target`` (nodes, or the id of a request)."""

    operation: str
    documents: list[Version] = field(default_factory=list)
    target: str = ""
    outcome: str = "done"


class Audit:
    """Writes the records of all sockets of one agent. ``counters`` are the API's counters."""

    def __init__(self, counters: dict[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        self._quiet = Quiet(_log, clock)
        self._denials: dict[str, tuple[float, int]] = {}
        self._idle: dict[str, tuple[float, int]] = {}
        self._file = AuditFile(counters)
        counters.setdefault("api_forbidden", 0)
        counters.setdefault(WITHHELD, 0)

    def configure(self, path: str) -> None:
        """Write further records to the file ``path`` too; "" for no file."""
        self._file.path = path

    def close(self) -> None:
        """Write the records that still wait for the file. Idempotent."""
        self._file.close()

    @contextlib.contextmanager
    def recording(self, request: web.Request, operation: str, *, changes: bool) -> Iterator[None]:
        """Context manager: record the request that the ``with`` block serves, if it may change something (``changes``)
        or is denied.
        """
        record = request[_RECORD] = Record(operation)
        try:
            yield
        except asyncio.CancelledError:
            record.outcome = "client_gone"
            raise
        except Exception as error:
            fault = to_fault(error)
            record.outcome = fault.code if fault is not None else "internal_error"
            if record.outcome == FORBIDDEN:
                self._counters["api_forbidden"] += 1
                changes = self._is_due(identity_of(request).name)
            raise
        finally:
            if changes:
                self._write(request, record)

    def _is_due(self, who: str) -> bool:
        """Whether one more denial of the client ``who`` is recorded."""
        due = self._spend(self._denials, who, 1) < MAX_DENIALS
        self._counters[WITHHELD] += not due
        return due

    def _spend(self, spent: dict[str, tuple[float, int]], who: str, amount: int) -> int:
        """Add ``amount`` to what the client has spent in this window. Returns what it had spent before."""
        now = self._clock()
        if len(spent) >= _MOST_CLIENTS and who not in spent:
            spent.clear()
        since, before = spent.get(who, (now, 0))
        if now - since >= _WINDOW:
            since, before = now, 0
        spent[who] = (since, before + amount)
        return before

    def stranger(self, request: web.Request) -> None:
        """Record a client that did not authenticate: at most one record a minute for those with a wrong token, and one
        for those without a token.
        """
        source, wrong = _source(request), "Authorization" in request.headers
        text = f"authenticate with {'a wrong token' if wrong else 'no token'}: unauthorized, from {source}"
        line = self._quiet.line(f"unauthorized {wrong}", text, source)
        if line is not None:
            record = Record("authenticate", outcome="unauthorized")
            self._tell(line, _entry("", source, record), logging.WARNING if wrong else logging.INFO)

    def denied(self, request: web.Request) -> None:
        """Record a user of the Unix socket who has no right at all."""
        who = identity_of(request).name
        self._counters["api_forbidden"] += 1
        if self._is_due(who):
            target = f"{request.method} {request.rel_url.raw_path}"[:MAX_KEY]
            self._write(request, Record("connect", target=target, outcome=FORBIDDEN))

    def _write(self, request: web.Request, record: Record) -> None:
        identity = identity_of(request)
        who, source = identity.name, "socket" if isinstance(identity.proof, Peer) else _source(request)
        if record.outcome != "done":
            more = len(record.documents) - _MOST_NAMED
            if more > 0:
                record.documents = record.documents[:_MOST_NAMED]
                record.target = f"and {more} more documents"
            size = len(json.dumps(_entry(who, source, record)))
            if self._spend(self._idle, who, size) >= MAX_IDLE_BYTES:
                self._counters[WITHHELD] += 1
                return
        keys = [document.key for document in record.documents]
        what = " ".join(filter(None, [record.operation, _listed(keys), record.target]))
        text = f"{what} by {who} from {source}: {record.outcome}"
        if len(record.documents) == 1 and record.outcome == "done":
            one = record.documents[0]
            text += f", version {one.before or 'none'} -> {one.after or 'none'}"
        level = logging.WARNING if record.outcome == FORBIDDEN else logging.INFO
        self._tell(text, _entry(who, source, record), level)

    def _tell(self, text: str, entry: dict[str, Any], level: int) -> None:
        _log.log(level, "%s", text, extra={"fields": entry})
        moment = datetime.datetime.now(datetime.timezone.utc)
        self._file.add({"time": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z", **entry})


def _source(request: web.Request) -> str:
    place = place_of(request)
    return place.source if place is not None else ""


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


def _entry(who: str, source: str, record: Record) -> dict[str, Any]:
    return {
        "who": who,
        "from": source,
        "operation": record.operation,
        "documents": [document._asdict() for document in record.documents],
        "target": record.target,
        "outcome": record.outcome,
    }


def record_of(request: web.Request) -> Record:
    """Return the record of ``request``, for a handler to fill in."""
    found = request.get(_RECORD)
    return found if isinstance(found, Record) else Record("")


def note_keys(request: web.Request, keys: Sequence[str]) -> None:
    """Record that ``request`` asks to change the documents ``keys``."""
    record_of(request).documents = [Version(key) for key in keys]


def note_written(request: web.Request, answers: Sequence[dict[str, Any]]) -> None:
    """Record the versions in ``answers``, the parts of the response to a request that writes documents."""
    record = record_of(request)
    record.documents = [
        Version(answer["key"], answer["previous_version"], answer["version"], _signer(answer)) for answer in answers
    ]
    if not any(answer["changed"] for answer in answers):
        record.outcome = "unchanged"


def _signer(answer: dict[str, Any]) -> str | None:
    found = answer.get("signed_by") or {}
    signer = found.get("signer") or found.get("key")
    return None if signer is None else str(signer)
