# SPDX-License-Identifier: MIT
"""The state file of ``watch --state``: the processed version of each document, from which a later run continues.

The file stores versions and not a revision, because revisions restart with each run of an agent, and the next run of
``watch`` may ask another agent.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import USAGE, CommandError

if TYPE_CHECKING:
    from ..api.client import Client

#: The value of ``kind`` that identifies a state file.
_KIND = "xdp-gossip watch 1"

Change = dict[str, Any]


class Seen:
    """The processed version of each document whose key begins with one prefix."""

    def __init__(self, path: Path, prefix: str) -> None:
        """Load the state file ``path`` if it exists.

        Raises :class:`CommandError` if the file is not a state file, or if it was written for another prefix.
        """
        self._path = path
        self._prefix = prefix
        #: Key -> processed version: the content of the state file.
        self._kept: dict[str, str] = {}
        self.is_new = not path.exists()
        if not self.is_new:
            self._kept = self._read()
        #: Key -> version that was passed to the caller, processed or not, so that no version is passed twice.
        self._given = dict(self._kept)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_bytes())
            if found["kind"] != _KIND or not isinstance(found["prefix"], str):
                raise ValueError
            kept = {str(key): str(version) for key, version in found["documents"].items()}
        except OSError as error:
            raise CommandError(f"--state {self._path}: {error.strerror}", USAGE) from None
        except (ValueError, LookupError, TypeError, AttributeError):
            text = f"--state {self._path}: expected a file written by watch; name another file, or remove it"
            raise CommandError(f"{text} to begin anew", USAGE) from None
        if found["prefix"] != self._prefix:
            text = f"--state {self._path}: belongs to a watch of {found['prefix']!r}, not of {self._prefix!r}"
            raise CommandError(f"{text}; name another file", USAGE)
        return kept

    def fresh(self, change: Change) -> bool:
        """Return True if ``change`` is a document change that was not passed to the caller before, and mark the change
        as passed.
        """
        if change["kind"] != "document":
            return False
        key, version = change["document"]["key"], change["document"]["version"]
        if self._given.get(key) == version:
            return False
        self._given[key] = version
        return True

    async def missed(self, client: Client, revision: int) -> list[Change]:
        """Return the differences between the state file and the agent's documents as changes, at most one for each
        document.

        A document that the agent does not have counts as deleted only if the agent's history contains the deletion.
        An agent that is new or has lost its state lacks documents that were never deleted.
        """
        here = {document["key"]: document async for document in client.each_document(self._prefix)}
        found = [("published", document) for document in here.values()]
        for key in sorted(self._kept.keys() - here.keys()):
            deletion = await _deletion(client, key)
            if deletion is not None:
                found.append(("deleted", deletion))
        changes: list[Change] = [
            {"revision": revision, "kind": "document", "event": event, "document": document}
            for event, document in found
        ]
        # Mark the changes as passed only now, after all requests have succeeded. If a request fails, the next call must
        # return these changes again.
        return [change for change in changes if self.fresh(change)]

    async def begin(self, client: Client) -> None:
        """Mark all current documents as processed."""
        async for document in client.each_document(self._prefix):
            self._kept[document["key"]] = self._given[document["key"]] = document["version"]
        self._write()

    def done(self, changes: list[Change]) -> None:
        """Mark ``changes`` as processed, and write the state file to disk. Raises :class:`CommandError`."""
        for change in changes:
            document = change.get("document")
            if document is None:
                continue
            if document["deleted"]:
                self._kept.pop(document["key"], None)
            else:
                self._kept[document["key"]] = document["version"]
        self._write()

    def _write(self) -> None:
        text = json.dumps({"kind": _KIND, "prefix": self._prefix, "documents": self._kept}, indent=0)
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            raise CommandError(f"--state {self._path}: {error.strerror}", USAGE) from None


async def _deletion(client: Client, key: str) -> dict[str, Any] | None:
    """Return the newest version of the document ``key`` if this version is a deletion; otherwise None."""
    from ..api.client import ApiError

    try:
        newest = (await client.history(key))["versions"][0]
    except ApiError as error:
        if error.code != "document_not_found":
            raise
        return None
    return dict(newest) if newest["deleted"] else None
