# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: the calls of the agent's HTTP API that the plugins use. Python 3.8 or later."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
import typing as t
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, Client, Response
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import Convergence, Question
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, number_of, text_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import parse_nodes, states_query
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import BadAnswer, ConfigError

#: Duration of one long poll, in seconds. The agent allows 60 seconds, but with shorter polls the plugins detect a dead
#: member earlier.
_POLL = 20.0

#: Pattern of a content type, the same as in the agent.
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62}(?:/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62})?")

#: Fields of a document's description that the plugins return.
_DOCUMENT = (
    "key",
    "version",
    "digest",
    "size",
    "content_type",
    "author",
    "comment",
    "published_at",
    "deleted",
    "expires",
    "batch_size",
    "signed_by",
    "sealed",
)


def digest_of(value: bytes) -> str:
    """Return the digest of a document's value in the API's form ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(value).hexdigest()


def check_key(key: str) -> str:
    """Return ``key`` if it is a valid name of a document. Raises ``ConfigError`` with the rule that ``key`` breaks."""
    size = len(key.encode("utf-8", "replace"))
    if not 1 <= size <= 512:
        raise ConfigError("key: expected 1 to 512 bytes of UTF-8, got %d" % size)
    if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in key):
        raise ConfigError("key: expected no control character and valid Unicode, got %r" % clip(key))
    if any(segment in ("", ".", "..") for segment in key.split("/")):
        raise ConfigError("key: expected no empty, '.' or '..' segment between slashes, got %r" % clip(key))
    return key


def check_content_type(kind: str) -> str:
    """Return ``kind`` if it is a valid content type: a name such as "json", or a media type. Raises ``ConfigError``."""
    if not _CONTENT_TYPE.fullmatch(kind):
        raise ConfigError("content_type: expected a name such as json, or a media type, got %r" % clip(kind))
    return kind


class Fleet:
    """Calls the API of the first member of a fleet that answers. Every method raises ``ClientError``."""

    def __init__(self, client: Client) -> None:
        self.client = client
        #: Time of the last answer to a read of a document, by the clock of that member, in seconds since the epoch.
        self.now = time.time()
        #: Whether an isolated member must refuse a write before anything is written, because the caller will wait for
        #: confirmations.
        self.unless_isolated = False
        #: Whether the member that answered the last :meth:`nodes` is isolated, so that its NodeList may be wrong.
        self.isolated = False
        #: For each document that :meth:`read` has read or has not found: its version or that of its deletion, and the
        #: versions before it, as far as the member knows them.
        self.lineages: dict[str, list[str]] = {}

    @property
    def endpoint(self) -> str:
        """Return the URL of the endpoint that answered last."""
        return self.client.endpoint

    def status(self) -> dict[str, t.Any]:
        """Return the member's status (``GET /v1/status``)."""
        return self.client.request("GET", "/v1/status").json()

    def nodes(self, states: t.Sequence[str]) -> tuple[list[dict[str, t.Any]], list[str]]:
        """Return the nodes in one of ``states``, and one line of text for each invalid node (see ``parse_nodes``)."""
        answer = self.client.request("GET", "/v1/nodes", {"state": states_query(states)}).json()
        self.isolated = answer.get("isolated") is True
        try:
            nodes, problems = parse_nodes(answer.get("nodes"))
        except ValueError as exc:
            raise BadAnswer("%s: %s" % (self.endpoint, exc)) from None
        return [node for node in nodes if node["state"] in states], problems

    def local_node(self) -> dict[str, t.Any]:
        """Return the member itself as a node (``GET /v1/node``)."""
        return _node(self.client.request("GET", "/v1/node"))

    def update_node(self, changes: dict[str, str], body: bytes) -> dict[str, t.Any]:
        """Change the member's name or private data (``PATCH /v1/node``). ``body`` is the JSON of ``changes``."""
        return _node(self._send("PATCH", "/v1/node", body))

    def join(self, body: bytes) -> int:
        """Tell the member to contact the nodes in ``body`` (``POST /v1/node/join``).

        Returns the number of addresses in ``body`` that the member did not know before.
        """
        return number_of(self._send("POST", "/v1/node/join", body).json(), "added")

    def forget(self, node: str) -> None:
        """Remove a dead node from the member's node list (``DELETE /v1/nodes/NODE``)."""
        self.client.request("DELETE", "/v1/nodes/" + quote(node, safe=""))

    def move(self, verb: str) -> dict[str, t.Any]:
        """Start or stop heartbeats, or leave the cluster, by ``POST`` to ``/v1/node/start``, ``stop`` or ``leave``."""
        return self._send("POST", "/v1/node/" + verb, b"").json()

    def _send(self, method: str, path: str, body: bytes) -> Response:
        return self.client.request(method, path, body=body, headers={"Content-Type": "application/json"})

    def documents(self, prefix: str = "") -> dict[str, t.Any]:
        """List documents without their values (``GET /v1/documents``) as ``{"documents": [...], "digest": ...}``."""
        answer = self.client.request("GET", "/v1/documents", {"prefix": prefix or None}).json()
        documents = answer.get("documents")
        if not isinstance(documents, list) or not all(isinstance(entry, dict) for entry in documents):
            raise BadAnswer("%s: documents: expected a list of objects" % self.endpoint)
        return {"documents": [_describe(entry) for entry in documents], "digest": text_of(answer, "digest")}

    def described(self, key: str) -> dict[str, t.Any] | None:
        """Return a document's description without its value; ``None`` if the document does not exist."""
        answer = self.client.request("GET", "/v1/documents", {"prefix": key, "limit": "1"}).json()
        # A key comes before all longer keys that begin with it.
        found = answer.get("documents")
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise BadAnswer("%s: documents: expected a list of objects" % self.endpoint)
        return _describe(found[0]) if found and found[0].get("key") == key else None

    def read(self, key: str) -> tuple[dict[str, t.Any], bytes] | None:
        """Return a document's description and value; ``None`` if the document does not exist or was deleted."""
        try:
            return self._document(key, None)
        except ApiError as exc:
            if exc.status == 404 and exc.code == "document_not_found":
                self.lineages[key] = _texts(exc.details.get("lineage"))
                return None
            raise

    def _document(self, key: str, version: str | None) -> tuple[dict[str, t.Any], bytes]:
        response = self.client.request("GET", _path(key), {"format": "json", "version": version})
        self.now = _clock(response.headers)
        answer = response.json()
        try:
            value = base64.b64decode(text_of(answer, "value_base64"), validate=True)
        except (binascii.Error, ValueError):
            raise BadAnswer("%s: value_base64 of %r is not base64" % (self.endpoint, clip(key))) from None
        document = _describe(answer)
        if document["digest"] != digest_of(value):
            raise BadAnswer("%s: the value of %r does not match its digest" % (self.endpoint, clip(key)))
        if version is None:
            self.lineages[key] = _texts(answer.get("lineage"))
        return document, value

    def write(
        self, key: str, value: bytes, if_version: str | None, about: t.Mapping[str, str | None]
    ) -> dict[str, t.Any]:
        """Write a document (``PUT``). A failed ``if_version`` raises ``ApiError`` with status 412.

        ``about`` contains further parameters, such as content_type, author and comment.
        """
        headers = dict(self._condition(if_version), **{"Content-Type": "application/octet-stream"})
        repeatable = if_version is None
        return _written(self.client.request("PUT", _path(key), about, value, headers, repeatable=repeatable).json())

    def delete(self, key: str, if_version: str | None, about: t.Mapping[str, str | None]) -> dict[str, t.Any]:
        """Delete a document (``DELETE``). A failed ``if_version`` raises ``ApiError`` with status 412.

        ``about`` may contain author and comment.
        """
        headers = self._condition(if_version)
        repeatable = if_version is None
        return _written(self.client.request("DELETE", _path(key), about, headers=headers, repeatable=repeatable).json())

    def write_many(self, entries: list[dict[str, t.Any]], said: t.Mapping[str, str | None]) -> list[dict[str, t.Any]]:
        """Write all documents of ``entries`` or none (``POST /v1/documents``). Returns one answer for each entry.

        ``said`` contains what applies to all documents: author and comment, or comment, signed_at and signature.
        """
        said = {name: text for name, text in said.items() if text is not None}
        body = json.dumps(dict(said, documents=entries), ensure_ascii=False).encode("utf-8")
        free = not any("if_version" in entry or "if_absent" in entry for entry in entries)
        headers = dict(self._condition(None), **{"Content-Type": "application/json"})
        answer = self.client.request("POST", "/v1/documents", body=body, headers=headers, repeatable=free).json()
        written = answer.get("documents")
        if not isinstance(written, list) or not all(isinstance(one, dict) for one in written):
            raise BadAnswer("%s: documents: expected a list of objects" % self.endpoint)
        if [one.get("key") for one in written] != [entry["key"] for entry in entries]:
            raise BadAnswer("%s: documents: expected an answer for each document sent, in that order" % self.endpoint)
        return [_written(one) for one in written]

    def _condition(self, if_version: str | None) -> dict[str, str]:
        headers = {"X-XDP-Gossip-Unless": "isolated"} if self.unless_isolated else {}
        if if_version is not None:
            name, value = ("If-None-Match", "*") if if_version == "absent" else ("If-Match", '"%s"' % if_version)
            headers[name] = value
        return headers

    def history(self, key: str, diff: bool = False) -> list[dict[str, t.Any]]:
        """Return the document's versions in the member's history, newest first (``GET /v1/history``). The list is empty
        for an unknown document.
        """
        asked = {"diff": "1" if diff else None}
        try:
            answer = self.client.request("GET", "/v1/history/" + quote(key, safe="/"), asked).json()
        except ApiError as exc:
            if exc.status == 404 and exc.code == "document_not_found":
                return []
            raise
        versions = answer.get("versions")
        if not isinstance(versions, list) or not all(isinstance(one, dict) for one in versions):
            raise BadAnswer("%s: versions: expected a list of objects" % self.endpoint)
        more = ("diff",) if diff else ()
        return [dict(_describe(one), **{name: one.get(name) for name in more}) for one in versions]

    def version(self, key: str, version: str) -> tuple[dict[str, t.Any], bytes]:
        """Return description and value of one version in the member's history.

        Raises ``ConfigError`` if the history does not contain the version, or if the version is a deletion.
        """
        try:
            return self._document(key, version)
        except ApiError as exc:
            if exc.code == "version_deleted":
                raise ConfigError(
                    "version %s of document %r is a deletion, it has no content" % (clip(version), clip(key))
                ) from None
            if exc.code != "version_not_found":
                raise
        known = ", ".join(clip(str(one["version"]), 80) for one in self.history(key)[:10]) or "none"
        raise ConfigError(
            "%s has no version %s of document %r; it has %s" % (self.endpoint, clip(version), clip(key), known)
        )

    def rollback(
        self,
        key: str,
        version: str,
        if_version: str | None,
        author: str | None,
        comment: str | None,
        expires: int | None,
    ) -> dict[str, t.Any]:
        """Publish the content of a former ``version`` as a new version (``POST /v1/rollback``).

        ``expires`` is the lifetime in seconds; 0 means no expiry, and ``None`` keeps the expiry of the former version.
        """
        said: dict[str, t.Any] = {"version": version, "author": author or "", "comment": comment or ""}
        if expires is not None:
            said["expires_in"] = expires or "never"
        headers = dict(self._condition(if_version), **{"Content-Type": "application/json"})
        path, body = "/v1/rollback/" + quote(key, safe="/"), json.dumps(said).encode("utf-8")
        repeatable = if_version is None
        return _written(self.client.request("POST", path, body=body, headers=headers, repeatable=repeatable).json())

    def repair(self, key: str | None) -> int:
        """Make the member sync at once with the members that have different documents (``POST /v1/repair``). Returns
        their number.
        """
        body = json.dumps({} if key is None else {"key": key}).encode("utf-8")
        return number_of(self._send("POST", "/v1/repair", body).json(), "asked")

    def rendered(self) -> list[dict[str, t.Any]]:
        """Return the files that the member renders from documents (``GET /v1/rendered``)."""
        templates = self.client.request("GET", "/v1/rendered").json().get("templates")
        if not isinstance(templates, list) or not all(isinstance(one, dict) for one in templates):
            raise BadAnswer("%s: templates: expected a list of objects" % self.endpoint)
        return templates

    def converge(self, question: Question, wait: str, timeout: float) -> tuple[Convergence, float]:
        """Ask the agent again and again, until as many members as ``wait`` requires meet the conditions in
        ``question``, or until ``timeout`` seconds have passed. With ``timeout`` 0, ask the agent only once.

        Returns the last answer, and the seconds since the first request.
        """
        started = time.monotonic()
        while True:
            left = max(0.0, timeout - (time.monotonic() - started))
            poll = min(left, _POLL)
            asked = dict(question.parameters(), wait=wait, timeout="%g" % round(poll, 3))
            before = time.monotonic()
            told = self.client.request("GET", "/v1/convergence", asked, extra_time=poll).json()
            answer = Convergence(told, question.applied)
            now = time.monotonic()
            if answer.converged or answer.final or now - started >= timeout:
                return answer, now - started
            # If the agent answers at once without convergence, pause before the next request, so that this method does
            # not send requests continuously.
            time.sleep(min(max(0.0, 0.2 - (now - before)), max(0.0, timeout - (now - started))))


def _clock(headers: t.Mapping[str, str]) -> float:
    """Return the time in the answer's header Date, because this time does not depend on the local clock. Without this
    header, return the local time.
    """
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return time.time()


def _path(key: str) -> str:
    return "/v1/documents/" + quote(key, safe="/")


def _node(response: Response) -> dict[str, t.Any]:
    """Return the node in an answer. Older agents do not know zones, so the zone of their nodes is empty."""
    return dict({"zone": ""}, **response.json())


def _describe(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    return {field: answer.get(field) for field in _DOCUMENT}


def _texts(value: t.Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _written(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    if not isinstance(answer.get("changed"), bool):
        raise BadAnswer("changed: expected true or false in the answer to a write")
    return dict(_describe(answer), changed=answer["changed"], previous_version=answer.get("previous_version"))
