# SPDX-License-Identifier: MIT
"""Routes for documents: list, read, publish, delete and history.

Writes support compare-and-set with If-Match and If-None-Match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from aiohttp import web

from ..core.shown import shown
from ..core.types import (
    MAX_AUTHOR,
    MAX_BATCH,
    MAX_COMMENT,
    MAX_CONTENT_TYPE,
    MAX_EXPIRES_IN,
    MAX_KEY,
    Document,
    Version,
    Write,
)
from ..node import shapes
from ..node.convergence import refuse_isolated
from ..worker.contents import SMALL
from . import batch, lists, params, render
from .access import Right, attributed, identity_of, recheck
from .audit import note_keys, note_written
from .connection import gone
from .context import Context
from .errors import Fault, bad_request
from .headers import UNLESS_HEADER, UNLESS_ISOLATED
from .routes import Route, delete, get, post, put

_PREFIX = "/v1/documents/"
_HISTORY = "/v1/history/"
_ROLLBACK = "/v1/rollback/"

#: Maximum total size, in bytes, of the values in one history response. Versions beyond this limit are listed without
#: their values.
MAX_HISTORY_VALUES = 32 * 1024 * 1024

#: The allowed JSON keys of a batch, and the maximum number of JSON values in a batch. One document of a batch has about
#: ten JSON values.
_BATCH = ("documents", "author", "comment", "signed_at", "signature")
MAX_BATCH_VALUES = 20 * MAX_BATCH

#: A content type: a short name (raw, json, yaml, text, ...) or a media type without parameters (RFC 6838, 4.2).
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62}(/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62})?")
_MEDIA_TYPES = {"json": "application/json", "yaml": "application/yaml", "text": "text/plain; charset=utf-8"}


def media_type(content_type: str) -> str:
    """Return the HTTP Content-Type header for a document whose content type is ``content_type``."""
    if not _CONTENT_TYPE.fullmatch(content_type):
        return "application/octet-stream"
    return content_type if "/" in content_type else _MEDIA_TYPES.get(content_type, "application/octet-stream")


def written(context: Context, result: Any) -> dict[str, Any]:
    """Build the response to a publish or delete: the document, the version that it replaced, and whether anything
    changed.
    """
    previous = str(result.previous) if result.previous else None
    return {**context.shape(result.document), "changed": result.changed, "previous_version": previous}


def written_or_nothing(context: Context, key: str, result: Any) -> dict[str, Any]:
    """Build the JSON response to a publish or delete of ``key``, even if ``result`` contains no document."""
    if result.document is None:
        return {"key": key, "version": None, "changed": False, "previous_version": None}
    return written(context, result)


def prefix_of(query: dict[str, str]) -> str:
    """Return the query parameter ``prefix``, with which all selected keys begin; "" selects all keys."""
    prefix = query.get("prefix", "")
    if len(prefix.encode("utf-8", "surrogatepass")) > MAX_KEY:
        raise bad_request(f"prefix: expected at most {MAX_KEY} bytes")
    return prefix


class Documents:
    """Handlers of /v1/documents and /v1/history."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._node_list = context.node_list
        self._requests = context.requests

    def routes(self) -> list[Route]:
        """Return the routes of this class: paths and handlers.

        A key may contain ``/``. The path patterns also match line feeds, so that the handler can reject a key with a
        line feed and explain why.
        """
        return [
            get(Right.READ, "/v1/documents", self.list),
            post(Right.WRITE, "/v1/documents", self.publish_many),
            get(Right.READ, "/v1/documents/{key:(?s:.+)}", self.read),
            put(Right.WRITE, "/v1/documents/{key:(?s:.+)}", self.publish),
            delete(Right.WRITE, "/v1/documents/{key:(?s:.+)}", self.delete),
            get(Right.READ, "/v1/history/{key:(?s:.+)}", self.history),
            post(Right.WRITE, "/v1/rollback/{key:(?s:.+)}", self.rollback),
            post(Right.WRITE, "/v1/repair", self.repair),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """List all documents without their values."""
        query = params.query(request, ("prefix", "limit", "cursor"))
        prefix, page = prefix_of(query), lists.page(query, MAX_KEY)
        digest = self._node_list.documents_digest()
        prefixes = identity_of(request).narrowed(prefix)
        record = self._node_list.local().record  # who signed a document depends on the signers, too
        etag = render.etag_of([prefixes, page, digest, record.signers if record else 0])
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if params.matches(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=headers)
        found: list[Document] = []
        for one in prefixes:  # in the order of the keys, and no key has two of the prefixes
            more_of_it = None if page.more is None else page.more - len(found)
            if more_of_it != 0:
                found += self._node_list.documents(one, page.cursor, more_of_it)
        documents, following = page.cut(found, lambda document: document.key)
        more = {"digest": digest, "next_cursor": following}
        return await lists.answer(request, "documents", documents, self._context.shape, more, headers)

    async def read(self, request: web.Request) -> web.Response:
        """Return the raw value of a document; with ``format=json``, return the value and the metadata as JSON.

        The parameter ``version`` selects an earlier version.
        """
        query = params.query(request, ("format", "version"))
        wanted = query.get("format", "raw")
        if wanted not in ("raw", "json"):
            raise bad_request(f"format: expected raw or json, got {shown(wanted)}")
        key = self._key(request, _PREFIX)
        if "version" in query:
            document = await self._version(key, params.version(query["version"], "version"))
        else:
            held = self._node_list.document(key)
            if held is None:
                lineage = self._node_list.lineage(key)
                fault = Fault(404, "document_not_found", f"there is no document {key!r}", key=key)
                if lineage:
                    fault.details["lineage"] = [str(version) for version in lineage]
                raise fault
            document = held
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
            identity = identity_of(request)
            own = [other for other in document.batch if identity.may_use(other)]
            # The statement of a batch names all of its documents, so nothing less than all can be verified with it.
            signature = self._node_list.signature(document) if len(own) == len(document.batch) else None
            shape = shapes.whole_document(document, self._node_list.signed_by(document), signature)
            shape["batch"] = own
            return render.json_response(shape, headers=headers)
        headers["Content-Type"] = media_type(document.content_type)
        return web.Response(body=document.value, headers=headers)

    async def _version(self, key: str, version: Version) -> Document:
        document = await self._node_list.version(key, version)
        if document.deleted:
            text = f"version {version} of document {key!r} is its deletion, it has no value"
            raise Fault(410, "version_deleted", text, key=key, author=document.author, comment=document.comment)
        return document

    def _key(self, request: web.Request, path: str) -> str:
        """Return the key that follows ``path``. Raises :class:`Fault` 403 if the client may not use this key."""
        key = params.path_key(request, path)
        note_keys(request, [key])
        identity_of(request).need_key(key)
        return key

    def _expected(self, request: web.Request, key: str) -> tuple[Version | None, bool]:
        """Parse If-Match and If-None-Match into (required version or None, whether the document must not exist)."""
        match, none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
        if match is not None and none_match is not None:
            raise bad_request("expected If-Match or If-None-Match, got both", "invalid_header")
        if none_match is not None:
            if none_match.strip() != "*":
                raise bad_request(f"If-None-Match: expected *, got {shown(none_match)}", "invalid_header")
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

    def _allowed(self, request: web.Request) -> Callable[[], None]:
        """Return a function that raises an error if the request must not be executed now.

        The error is ``ProtocolError`` (isolated) for a client that waits for confirmations, which sends the header
        ``X-XDP-Gossip-Unless: isolated``. The error is :class:`Fault` 401 if the rights of the client have changed.
        """
        unless = request.headers.get(UNLESS_HEADER)
        if unless not in (None, UNLESS_ISOLATED):
            raise bad_request(f"{UNLESS_HEADER}: expected {UNLESS_ISOLATED}, got {shown(unless)}", "invalid_header")

        def allowed() -> None:
            recheck(request)
            if unless is not None:
                refuse_isolated(self._node_list.isolated)

        return allowed

    async def publish(self, request: web.Request) -> web.Response:
        """Write a document. The response is sent once the document is on this member's disk."""
        query = params.query(request, ("content_type", "suffix", "author", "comment", "expires_in"))
        content_type = query.get("content_type")
        if content_type is not None and not _CONTENT_TYPE.fullmatch(content_type):
            raise bad_request(f"content_type: expected a name or media type, got {shown(content_type)}")
        suffix = params.text_limit(query, "suffix", "", MAX_CONTENT_TYPE)
        author = params.text_limit(query, "author", "", MAX_AUTHOR)
        comment = params.text_limit(query, "comment", "", MAX_COMMENT)
        expires_in = params.seconds(query, "expires_in", 0.0, MAX_EXPIRES_IN) if "expires_in" in query else None
        key = self._key(request, _PREFIX)
        author, comment = attributed(identity_of(request), author, comment)
        expected, absent = self._expected(request, key)
        value = await read_document(request, self._context)
        wanted = Write(key, value, content_type, expected, absent, expires_in, suffix=suffix)
        with self._requests.once(request, value, self._allowed(request)) as done:
            if done.answer is None:
                [result] = await self._node_list.publish_many([wanted], author=author, comment=comment)
                done.answer = written(self._context, result)
                note_written(request, [done.answer])
        return render.json_response(done.answer, headers={"ETag": f'"{done.answer["version"]}"'})

    async def delete(self, request: web.Request) -> web.Response:
        """Write a tombstone. Deleting a document that does not exist changes nothing and is not an error."""
        query = params.query(request, ("author", "comment"))
        author = params.text_limit(query, "author", "", MAX_AUTHOR)
        comment = params.text_limit(query, "comment", "", MAX_COMMENT)
        key = self._key(request, _PREFIX)
        author, comment = attributed(identity_of(request), author, comment)
        await params.no_body(request, self._context.uploads)
        expected, absent = self._expected(request, key)
        if absent:
            raise bad_request("If-None-Match: expected If-Match instead, with the version to delete", "invalid_header")
        with self._requests.once(request, b"", self._allowed(request)) as done:
            if done.answer is None:
                result = await self._node_list.delete(key, expected=expected, author=author, comment=comment)
                done.answer = written_or_nothing(self._context, key, result)
                note_written(request, [done.answer])
        return render.json_response(done.answer)

    async def history(self, request: web.Request) -> web.Response:
        """List the stored versions of one document, newest first."""
        query = params.query(request, ("values", "diff"))
        values, differences = params.flag(query, "values"), params.flag(query, "diff")
        key = self._key(request, _HISTORY)
        versions = await self._node_list.history(key)
        if not versions:
            raise Fault(404, "document_not_found", f"there never was a document {key!r}", key=key)
        lost = self._node_list.unread(key, versions)
        rendered = [
            {**entry, "conflict": document.version in lost}
            for entry, document in zip(_rendered(self._context, versions, values), versions)
        ]
        if differences:
            # If the client disconnects, the computation of the differences is cancelled.
            pairs = _pairs(versions)
            texts = await self._context.wait(
                lambda: self._context.contents.differences(pairs), gone(request), identity_of(request)
            )
            rendered = [{**entry, "diff": text} for entry, text in zip(rendered, texts)]
        return render.json_response({"key": key, "versions": rendered})

    async def publish_many(self, request: web.Request) -> web.Response:
        """Write and delete several documents atomically: either all of them or none."""
        params.query(request, ())
        # An encoded value is longer than the value itself: base64 encodes three bytes in four, and JSON escapes one
        # byte in up to six.
        most = 2 * self._context.max_document + params.MAX_JSON
        raw = await params.read_body(request, self._context.uploads, most)
        body = params.as_object(await self._parse(raw), _BATCH)
        author = batch.text(body, "author", MAX_AUTHOR)
        comment = batch.text(body, "comment", MAX_COMMENT)
        writes = batch.writes(body)
        identity = identity_of(request)
        note_keys(request, [write.key for write in writes])
        for index, write in enumerate(writes):
            identity.need_key(write.key, f"documents[{index}].key")
        if body.get("signature") is None:  # a signature covers the comment, and a signed document has no author
            author, comment = attributed(identity, author, comment)
        with self._requests.once(request, render.json_bytes(body), self._allowed(request)) as done:
            if done.answer is None:
                results = await self._node_list.publish_many(writes, author=author, comment=comment)
                documents = [
                    written_or_nothing(self._context, write.key, result) for write, result in zip(writes, results)
                ]
                fresh = [entry["version"] for entry in documents if entry["changed"]]
                version = fresh[0] if fresh else None
                done.answer = {"changed": bool(fresh), "version": version, "documents": documents}
                note_written(request, documents)
        return render.json_response(done.answer)

    async def _parse(self, raw: bytes) -> Any:
        """Parse the JSON text of a batch. A long text is parsed in a worker process."""
        if len(raw) <= SMALL:
            return params.parse_json(raw)
        try:
            return await self._context.contents.parse_json(raw, MAX_BATCH_VALUES)
        except ValueError as error:
            raise params.no_json(str(error)) from None

    async def rollback(self, request: web.Request) -> web.Response:
        """Publish an earlier version of a document again."""
        params.query(request, ())
        key = self._key(request, _ROLLBACK)
        expected, absent = self._expected(request, key)
        if absent:
            raise bad_request("If-None-Match: expected If-Match instead, with the version to replace", "invalid_header")
        members = ("version", "author", "comment", "expires_in")
        body = await params.read_object(request, self._context.uploads, members)
        version = params.version(batch.text(body, "version", MAX_KEY, required=True), "version")
        author, comment = batch.text(body, "author", MAX_AUTHOR), batch.text(body, "comment", MAX_COMMENT)
        author, comment = attributed(identity_of(request), author, comment or (author and f"rollback to {version}"))
        never: Literal["never"] | None = "never" if body.get("expires_in") == "never" else None
        expires_in = never or batch.seconds(body, "")
        with self._requests.once(request, render.json_bytes(body), self._allowed(request)) as done:
            if done.answer is None:
                result = await self._node_list.rollback(
                    key, version, expected=expected, author=author, comment=comment, expires_in=expires_in
                )
                done.answer = written(self._context, result)
                note_written(request, [done.answer])
        return render.json_response(done.answer, headers={"ETag": f'"{done.answer["version"]}"'})

    async def repair(self, request: web.Request) -> web.Response:
        """Start a sync at once with every member whose documents digest differs from this member's."""
        params.query(request, ())
        body = await params.read_object(request, self._context.uploads, ("key",))
        if "key" not in body:
            identity_of(request).need_all_keys("repair without key")
        else:
            key = params.key(batch.text(body, "key", MAX_KEY, required=True))
            note_keys(request, [key])
            identity_of(request).need_key(key)
        return render.json_response({"asked": self._node_list.repair()})


def _rendered(context: Context, versions: list[Document], values: bool) -> list[dict[str, Any]]:
    left = MAX_HISTORY_VALUES
    rendered = []
    for document in versions:
        left -= document.size
        if not values:
            rendered.append(context.shape(document))
        elif left >= 0:
            rendered.append(shapes.document_with_value(document, context.node_list.signed_by(document)))
        else:
            rendered.append({**context.shape(document), "value_base64": None})
    return rendered


def _pairs(versions: list[Document]) -> list[tuple[bytes, bytes, str, str]]:
    """Pair each version with its predecessor, which follows it in the list; the oldest version is paired with an empty
    value.
    """
    pairs = []
    for index, new in enumerate(versions):
        old = versions[index + 1] if index + 1 < len(versions) else None
        names = (str(old.version) if old else "/dev/null", str(new.version))
        pairs.append((_comparable(old) if old else b"", _comparable(new), *names))
    return pairs


def _comparable(document: Document) -> bytes:
    return document.value if document.sealed is None else shapes.sealed_summary(document)


async def read_document(request: web.Request, context: Context) -> bytes:
    """Read a document's value from the request body.

    Raises :class:`Fault` if the value exceeds the size limit of one document or of all concurrent uploads.
    """
    return await params.read_body(request, context.uploads, context.max_document, "document_too_large")
