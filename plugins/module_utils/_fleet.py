# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: the calls of the agent's HTTP API that the plugins need. Python 3.8 or later."""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
import typing as t
from urllib.parse import quote

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, Client
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import Convergence, Question
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, number_of, text_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import parse_nodes
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import BadAnswer, ConfigError

#: One long poll, seconds. The agent allows 60; shorter ones notice a member that dies meanwhile.
_POLL = 20.0

#: Fields of a document's description that are handed on.
_DOCUMENT = ("key", "version", "digest", "size", "content_type", "author", "comment", "published_at", "deleted")


def digest_of(value: bytes) -> str:
    """``sha256:<hex>``, as the API writes a document's digest."""
    return "sha256:" + hashlib.sha256(value).hexdigest()


def check_key(key: str) -> str:
    """Return ``key`` when it may name a document. Raises ``ConfigError`` with the rule that it breaks."""
    size = len(key.encode("utf-8", "replace"))
    if not 1 <= size <= 512:
        raise ConfigError("key: expected 1 to 512 bytes of UTF-8, got %d" % size)
    if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in key):
        raise ConfigError("key: expected no control character and valid Unicode, got %r" % clip(key))
    if any(segment in ("", ".", "..") for segment in key.split("/")):
        raise ConfigError("key: expected no empty, '.' or '..' segment between slashes, got %r" % clip(key))
    return key


class Fleet:
    """The API of whichever member answers. Every method raises ``ClientError`` (see ``_client``)."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def endpoint(self) -> str:
        """URL of the member that answered last."""
        return self.client.endpoint

    def status(self) -> dict[str, t.Any]:
        """``GET /v1/status``."""
        return self.client.request("GET", "/v1/status").json()

    def nodes(self, states: t.Sequence[str]) -> tuple[list[dict[str, t.Any]], list[str]]:
        """The NodeList: nodes in one of ``states``, and why any were left out (see ``parse_nodes``)."""
        answer = self.client.request("GET", "/v1/nodes", {"state": ",".join(states)}).json()
        try:
            nodes, problems = parse_nodes(answer.get("nodes"))
        except ValueError as exc:
            raise BadAnswer("%s: %s" % (self.endpoint, exc)) from None
        return [node for node in nodes if node["state"] in states], problems

    def local_node(self) -> dict[str, t.Any]:
        """``GET /v1/node``: the member itself."""
        return self.client.request("GET", "/v1/node").json()

    def update_node(self, changes: dict[str, str], body: bytes) -> dict[str, t.Any]:
        """``PATCH /v1/node`` with ``body``, the JSON of ``changes``."""
        return self._send("PATCH", "/v1/node", body).json()

    def join(self, body: bytes) -> int:
        """``POST /v1/node/join``; returns how many addresses were new."""
        return number_of(self._send("POST", "/v1/node/join", body).json(), "added")

    def move(self, verb: str) -> dict[str, t.Any]:
        """``POST /v1/node/start``, ``stop`` or ``leave``."""
        return self._send("POST", "/v1/node/" + verb, b"").json()

    def _send(self, method: str, path: str, body: bytes) -> t.Any:
        return self.client.request(method, path, body=body, headers={"Content-Type": "application/json"})

    def documents(self, prefix: str = "") -> dict[str, t.Any]:
        """``GET /v1/documents``: ``{"documents": [...], "digest": ...}`` without values."""
        answer = self.client.request("GET", "/v1/documents", {"prefix": prefix or None}).json()
        documents = answer.get("documents")
        if not isinstance(documents, list) or not all(isinstance(entry, dict) for entry in documents):
            raise BadAnswer("%s: documents: expected a list of objects" % self.endpoint)
        return {"documents": [_describe(entry) for entry in documents], "digest": text_of(answer, "digest")}

    def read(self, key: str) -> tuple[dict[str, t.Any], bytes] | None:
        """A document's description and value; ``None`` when there is none (or it was deleted)."""
        try:
            answer = self.client.request("GET", _path(key), {"format": "json"}).json()
        except ApiError as exc:
            if exc.status == 404 and exc.code == "document_not_found":
                return None
            raise
        if answer.get("deleted") is True:
            return None
        try:
            value = base64.b64decode(text_of(answer, "value_base64"), validate=True)
        except (binascii.Error, ValueError):
            raise BadAnswer("%s: value_base64 of %r is not base64" % (self.endpoint, clip(key))) from None
        document = _describe(answer)
        if document["digest"] != digest_of(value):
            raise BadAnswer("%s: the value of %r does not match its digest" % (self.endpoint, clip(key)))
        return document, value

    def write(
        self, key: str, value: bytes, if_version: str | None, about: t.Mapping[str, str | None]
    ) -> dict[str, t.Any]:
        """``PUT``; ``about`` may hold content_type, author, comment. A lost compare-and-set is an ``ApiError`` 412."""
        headers = dict(_condition(if_version), **{"Content-Type": "application/octet-stream"})
        repeatable = if_version is None
        return _written(self.client.request("PUT", _path(key), about, value, headers, repeatable=repeatable).json())

    def delete(self, key: str, if_version: str | None) -> dict[str, t.Any]:
        """``DELETE``, likewise."""
        headers = _condition(if_version)
        repeatable = if_version is None
        return _written(self.client.request("DELETE", _path(key), headers=headers, repeatable=repeatable).json())

    def converge(self, question: Question, wait: str, timeout: float) -> tuple[Convergence, float]:
        """Ask until ``wait`` holds or ``timeout`` (seconds) is over; 0 asks once.

        Returns the last answer and the seconds it took.
        """
        started = time.monotonic()
        while True:
            left = max(0.0, timeout - (time.monotonic() - started))
            poll = min(left, _POLL)
            asked = dict(question.parameters(), wait=wait, timeout="%g" % round(poll, 3))
            before = time.monotonic()
            answer = Convergence(self.client.request("GET", "/v1/convergence", asked, extra_time=poll).json())
            now = time.monotonic()
            if answer.converged or now - started >= timeout:
                return answer, now - started
            # An agent that answers at once although nothing has converged must not be asked in a tight loop.
            time.sleep(min(max(0.0, 0.2 - (now - before)), max(0.0, timeout - (now - started))))


def _path(key: str) -> str:
    return "/v1/documents/" + quote(key, safe="/")


def _condition(if_version: str | None) -> dict[str, str]:
    if if_version is None:
        return {}
    return {"If-None-Match": "*"} if if_version == "absent" else {"If-Match": '"%s"' % if_version}


def _describe(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    return {field: answer.get(field) for field in _DOCUMENT}


def _written(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    if not isinstance(answer.get("changed"), bool):
        raise BadAnswer("the answer to a write says nothing about a change")
    return dict(_describe(answer), changed=answer["changed"], previous_version=answer.get("previous_version"))
