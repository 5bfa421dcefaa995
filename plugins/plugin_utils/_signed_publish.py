# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs documents on the controller and publishes them through the module on the target host.

The target host and its member may be compromised. They learn which documents the task publishes, and get signatures for
exactly these documents. The names, contents, types, expiry times and the comment in a statement come from the task, and
the cluster comes from the controller. Of the member's answer, a statement contains only which of the task's documents
are published again, and the versions that each of them replaces.
"""

from __future__ import annotations

import datetime
import json
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._batch import MAX_DOCUMENTS, MAX_KEY_BYTES
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import type_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signing_key import SigningError
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._statement import (
    LATEST,
    Part,
    earliest_after,
    statement,
    time_text,
)

#: Seconds by which the version of a document may be ahead of the controller's clock. Without this limit, a member could
#: make the controller sign at a time in the far future, and members would refuse all later signatures of the document.
MAX_AHEAD = 86_400
#: Maximum number of versions that a statement says the signer has read, for one document.
MAX_READ = 8
#: Number of attempts if others publish the documents after the module has read them.
ROUNDS = 5

Result = dict[str, t.Any]


class Key(t.Protocol):
    """A key that signs; see ``SigningKey``."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key."""

    def sign(self, text: bytes) -> str:
        """Return the armored signature of ``text``. Raises :class:`SigningError`."""


class SignedPublish:
    """A publish of one task.

    ``wishes``: the documents of the task; the constructor sets the type of each. ``host``: name of the target host, for
    messages. ``clock`` returns nanoseconds since the epoch. Raises :class:`SigningError` if the documents cannot be
    signed together.
    """

    def __init__(
        self,
        key: Key,
        cluster: str,
        wishes: t.Sequence[Wish],
        host: str,
        clock: t.Callable[[], int] = time.time_ns,
    ) -> None:
        self._key = key
        self._cluster = cluster
        self._wishes = wishes
        self._host = host
        self._clock = clock
        for wish in wishes:
            if wish.author:
                raise SigningError(
                    "document %r: author: expected none with sign_key, because the signature names the author; use "
                    "comment for other text" % clip(wish.key)
                )
            if wish.value is not None and wish.content_type is None:
                # The type of the document's current version would be a member's word.
                wish.content_type = type_of(wish.key, wish.suffix)
        if len({wish.comment or "" for wish in wishes}) > 1:
            raise SigningError("comment: expected the same comment for all documents with sign_key")
        if len(wishes) > MAX_DOCUMENTS:
            raise SigningError(
                "documents: expected at most %d documents with sign_key, got %d: use several tasks"
                % (MAX_DOCUMENTS, len(wishes))
            )
        size = sum(len(wish.key.encode("utf-8")) for wish in wishes)
        if size > MAX_KEY_BYTES:
            raise SigningError(
                "documents: expected names of at most %d bytes together with sign_key, got %d: use several tasks"
                % (MAX_KEY_BYTES, size)
            )

    def run(self, execute: t.Callable[[dict[str, t.Any]], Result]) -> Result:
        """Publish, and return the module's result. Makes a signature only if a document changes.

        ``execute`` runs the module with the option ``signing``: first with the fingerprint alone, so that the module
        names the documents that have to be written, and then with the signature. Raises :class:`SigningError`.
        """
        floor = 0
        result: Result = {}
        for _round in range(ROUNDS):
            result = execute({"key": self._key.fingerprint})
            lineages = result.pop("lineages", None)
            if result.get("failed") or lineages is None:
                return result
            member = "%s (member %s)" % (self._host, clip(str(result.get("endpoint"))))
            result = execute(self._signed(lineages, floor, member))
            actual = _outdated_by(result)
            if actual is None:
                return result
            if actual:
                floor = max(floor, self._time_after("?", actual, member))
        result["msg"] = "%s; gave up after %d signatures" % (result.get("msg"), ROUNDS)
        return result

    def _signed(self, lineages: t.Any, floor: int, member: str) -> dict[str, t.Any]:
        """Sign the documents of the task that ``lineages`` names. Returns the option ``signing`` of the module.

        ``floor``: earliest time of the signature in microseconds since the epoch.
        """
        planned = [wish for wish in self._wishes if isinstance(lineages, dict) and wish.key in lineages]
        if not planned:
            raise SigningError("%s: expected the names of documents of this task, got others" % member)
        now = self._clock() // 1000
        signed_at = max(now, floor)
        parts = []
        for wish in planned:
            read = self._read(wish.key, lineages[wish.key], member)
            if read:
                signed_at = max(signed_at, self._time_after(wish.key, read[0], member))
            expires = now // 1000 + wish.expires * 1000 if wish.expires and wish.value is not None else 0
            parts.append(Part(wish.key, wish.value, wish.content_type or "", expires, read))
        text = statement(self._cluster, signed_at, planned[0].comment or "", parts)
        return {
            "key": self._key.fingerprint,
            "signed_at": time_text(signed_at),
            "signature": self._key.sign(text),
            "documents": {
                part.key: {"read": list(part.read), "expires": time_text(part.expires * 1000) if part.expires else None}
                for part in parts
            },
        }

    def _read(self, key: str, lineage: t.Any, member: str) -> tuple[str, ...]:
        """Return ``lineage``, the versions that a member names for a document. Raises :class:`SigningError`."""
        if not isinstance(lineage, list) or len(lineage) > MAX_READ:
            raise SigningError(
                "%s: document %r: expected at most %d versions, got %r"
                % (member, clip(key), MAX_READ, clip(str(lineage)))
            )
        for version in lineage:
            self._parsed(key, version, member)
        return tuple(lineage)

    @staticmethod
    def _parsed(key: str, version: t.Any, member: str) -> int:
        """Return :func:`earliest_after` of a member's ``version``. Raises :class:`SigningError`."""
        try:
            found = earliest_after(version) if isinstance(version, str) else None
        except ValueError:
            found = None
        if found is None:
            raise SigningError(
                "%s: document %r: expected a version such as 019a3c1e5b2f0000@198.18.0.11:8000, got %r"
                % (member, clip(key), clip(str(version)))
            )
        return found

    def _time_after(self, key: str, version: t.Any, member: str) -> int:
        """Return the earliest time of a signature that replaces ``version``. Raises :class:`SigningError`."""
        found = self._parsed(key, version, member)
        ahead = found / 1e6 - self._clock() / 1e9
        if ahead > MAX_AHEAD or found > LATEST:
            raise SigningError(
                "%s: document %r has the version %s, whose time is %d seconds ahead of the controller's clock, "
                "expected at most %d: nothing was signed; compare the clocks of the controller and of this member"
                % (member, clip(key), version, ahead, MAX_AHEAD)
            )
        return found


def _outdated_by(result: Result) -> t.Any:
    """Return the version because of which a member refused the signature as too old, "" if the member names none;
    ``None`` if the member did not refuse it for this reason.
    """
    error = result.get("error")
    if not result.get("failed") or not isinstance(error, dict) or error.get("code") != "signature_outdated":
        return None
    details = error.get("details")
    lineage = details.get("lineage") if isinstance(details, dict) else None
    return lineage[0] if isinstance(lineage, list) and lineage else ""


def plain(value: t.Any) -> t.Any:
    """Return a copy of the arguments of a task in which all values have types of Python itself, as a module gets them.

    Ansible marks texts with subclasses of ``str``, and decrypts some values only when they become text.
    """
    return json.loads(json.dumps(_plain(value)))


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, t.Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return "".join(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)
