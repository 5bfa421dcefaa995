# SPDX-License-Identifier: MIT
"""Checks the number and total size of the documents, and whether a limit made this node reject documents."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding, Subject
from .look import Look

#: A value above this fraction of its limit counts as close to the limit.
_NEAR = 0.8
#: Suffix of a counter of documents that exceeded a limit -> NAME of the setting ``limits.NAME`` that sets this limit.
_REFUSED = {"too_large": "document", "too_many": "documents", "store_full": "store"}

_SAYS = Subject("document", room="warning", many="warning", refused="error", conflicts="note", given_up="note")


def examine(look: Look) -> Iterator[Finding]:
    """Compare the total size and number of documents with their limits, then report lost documents."""
    status, config, counters = look.status, look.sound, look.counters
    if status is None:
        return
    held, most = status["document_bytes"], status["document_bytes_limit"]
    text = f"{status['documents']} with {held} of at most {most} bytes (limits.store)"
    if held >= _NEAR * most:
        yield _SAYS("room", text, "delete some, or raise limits.store on every member")
    else:
        yield _SAYS.ok(text)
    if config is not None and status["documents"] >= _NEAR * config.limits.documents:
        text = f"{status['documents']} of at most {config.limits.documents} (limits.documents)"
        yield _SAYS("many", text, "delete some, or raise limits.documents on every member")
    for reason, limit in _REFUSED.items():
        refused = counters.get(f"documents_refused_{reason}")
        if refused:
            told = f"others' documents were refused {refused} times, because of limits.{limit} here"
            yield _SAYS("refused", told, f"give limits.{limit} the same value on every member")
    if counters.get("document_conflicts"):
        text = f"{counters['document_conflicts']} versions were overwritten by an author who had not seen them"
        yield _SAYS("conflicts", text, "xdp-gossip history KEY says which; publish with --if-version")
    lost = counters.get("fetches_given_up", 0) + counters.get("batches_given_up", 0)
    if lost:
        text = f"{lost} fetches of others' documents were given up; they are tried again with the next sync"
        yield _SAYS("given_up", text, "nothing, if xdp-gossip verify succeeds")
