# SPDX-License-Identifier: MIT
"""Routes about documents: list, read, publish, delete, history. Compare-and-set by If-Match and If-None-Match."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from .. import shapes
from ..core.types import MAX_KEY, Document, Version
from . import params, render
from .context import Context
from .errors import Fault, bad_request

_PREFIX = "/v1/documents/"
_HISTORY = "/v1/history/"

#: Bytes of values in one history answer; beyond it versions come without their value.
MAX_HISTORY_VALUES = 32 * 1024 * 1024
MAX_AUTHOR = 255
MAX_COMMENT = 1024

#: A short name (raw, json, yaml, text, ...) or a media type without parameters (RFC 6838, 4.2).
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62}(/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62})?")
_MEDIA_TYPES = {"json": "application/json", "yaml": "application/yaml", "text": "text/plain; charset=utf-8"}


def media_type(content_type: str) -> str:
    """The Content-Type header for a document of this ``content_type``."""
    if not _CONTENT_TYPE.fullmatch(content_type):
        return "application/octet-stream"
    return content_type if "/" in content_type else _MEDIA_TYPES.get(content_type, "application/octet-stream")


def written(result: Any) -> dict[str, Any]:
    """The answer to a publish or delete: DOC, what it replaced, and whether anything changed."""
    previous = str(result.previous) if result.previous else None
    return {**shapes.document(result.document), "changed": result.changed, "previous_version": previous}


def prefix_of(query: dict[str, str]) -> str:
    """The ``prefix`` parameter: the beginning of keys, "" for all."""
    prefix = query.get("prefix", "")
    if len(prefix.encode("utf-8", "surrogatepass")) > MAX_KEY:
        raise bad_request(f"prefix: expected at most {MAX_KEY} bytes")
    return prefix


class Documents:
    """Handlers of /v1/documents and /v1/history."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._node_list = context.node_list

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers. A key may contain ``/``; one with a line feed has to get here to be refused as a key."""
        return [
            web.get("/v1/documents", self.list),
            web.get("/v1/documents/{key:(?s:.+)}", self.read),
            web.put("/v1/documents/{key:(?s:.+)}", self.publish),
            web.delete("/v1/documents/{key:(?s:.+)}", self.delete),
            web.get("/v1/history/{key:(?s:.+)}", self.history),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """All documents, without their values."""
        prefix = prefix_of(params.query(request, ("prefix",)))
        documents = [shapes.document(document) for document in self._node_list.documents(prefix)]
        digest = self._node_list.status()["digest"]
        etag = render.etag_of([prefix, digest])
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if params.matches(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=headers)
        return render.json_response({"documents": documents, "digest": digest}, headers=headers)

    async def read(self, request: web.Request) -> web.Response:
        """The value itself, or with ``format=json`` everything about it."""
        wanted = params.query(request, ("format",)).get("format", "raw")
        if wanted not in ("raw", "json"):
            raise bad_request(f"format: expected raw or json, got {wanted[:80]!r}")
        key = params.path_key(request, _PREFIX)
        document = self._node_list.document(key)
        if document is None:
            raise Fault(404, "document_not_found", f"there is no document {key!r}", key=key)
        etag = f'"{document.version}"'
        headers = {
            "ETag": etag,
            "Cache-Control": "no-cache",
            "X-XDP-Gossip-Digest": document.digest,
            "X-Content-Type-Options": "nosniff",
        }
        if params.matches(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=headers)
        if wanted == "json":
            return render.json_response(shapes.document_with_value(document), headers=headers)
        headers["Content-Type"] = media_type(document.content_type)
        return web.Response(body=document.value, headers=headers)

    def _expected(self, request: web.Request, key: str) -> tuple[Version | None, bool]:
        """What If-Match and If-None-Match ask of the version held: (this version, no document at all)."""
        match, none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
        if match is not None and none_match is not None:
            raise bad_request("expected If-Match or If-None-Match, got both", "invalid_header")
        if none_match is not None:
            if none_match.strip() != "*":
                raise bad_request(f"If-None-Match: expected *, got {none_match[:80]!r}", "invalid_header")
            return None, True
        if match is None:
            return None, False
        if match.strip() == "*":
            held = self._node_list.document(key)
            if held is None:
                raise Fault(412, "version_mismatch", f"there is no document {key!r}", expected="*", actual=None)
            return held.version, False
        tags = params.etags(match, "If-Match")
        if len(tags) != 1 or tags[0][0]:
            raise bad_request("If-Match: expected exactly one strong entity tag", "invalid_header")
        return params.version(tags[0][1], "If-Match"), False

    async def publish(self, request: web.Request) -> web.Response:
        """Write a document. It is on this member's disk when the answer goes out."""
        query = params.query(request, ("content_type", "author", "comment"))
        content_type = query.get("content_type", "raw")
        if not _CONTENT_TYPE.fullmatch(content_type):
            raise bad_request(f"content_type: expected a name or media type, got {content_type[:80]!r}")
        author = params.text_limit(query, "author", "", MAX_AUTHOR)
        comment = params.text_limit(query, "comment", "", MAX_COMMENT)
        key = params.path_key(request, _PREFIX)
        expected, absent = self._expected(request, key)
        value = await read_document(request, self._context)
        result = await self._node_list.publish(
            value,
            key,
            expected=expected,
            absent=absent,
            content_type=content_type,
            author=author,
            comment=comment,
        )
        answer = written(result)
        return render.json_response(answer, headers={"ETag": f'"{answer["version"]}"'})

    async def delete(self, request: web.Request) -> web.Response:
        """Write a tombstone. Deleting what is not there changes nothing and is no error."""
        params.query(request, ())
        await params.no_body(request)
        key = params.path_key(request, _PREFIX)
        expected, absent = self._expected(request, key)
        if absent:
            raise bad_request("If-None-Match: expected If-Match, to delete a certain version", "invalid_header")
        result = await self._node_list.delete(key, expected=expected)
        if result.document is None:
            return render.json_response({"key": key, "version": None, "changed": False, "previous_version": None})
        return render.json_response(written(result))

    async def history(self, request: web.Request) -> web.Response:
        """The versions of a document that this member still has, newest first."""
        values = params.flag(params.query(request, ("values",)), "values")
        key = params.path_key(request, _HISTORY)
        versions = await self._node_list.history(key)
        if not versions:
            raise Fault(404, "document_not_found", f"there never was a document {key!r}", key=key)
        return render.json_response({"key": key, "versions": _rendered(versions, values)})


def _rendered(versions: list[Document], values: bool) -> list[dict[str, Any]]:
    left = MAX_HISTORY_VALUES
    rendered = []
    for document in versions:
        left -= document.size
        if not values:
            rendered.append(shapes.document(document))
        elif left >= 0:
            rendered.append(shapes.document_with_value(document))
        else:
            rendered.append({**shapes.document(document), "value_base64": None})
    return rendered


async def read_document(request: web.Request, context: Context) -> bytes:
    """A document's value from the body, within the limit of one document and of all uploads together."""
    announced = request.content_length
    reserve = context.max_document if announced is None else min(announced, context.max_document)
    with context.uploads.take(reserve):
        return await params.read_body(request, context.max_document, "document_too_large")
