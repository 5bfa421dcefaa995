# SPDX-License-Identifier: MIT
"""Serve the API in a test, and hold every single answer against the OpenAPI description."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import jsonschema
import yaml
from aiohttp import web
from yarl import URL

from tests.support.patience import patient
from xdp_gossip.api.app import build_app
from xdp_gossip.api.headers import API_HEADER
from xdp_gossip.api.info import openapi_text
from xdp_gossip.api.server import ApiServer
from xdp_gossip.core.types import Address

TOKEN = "a-token-of-the-tests"
SPEC: dict[str, Any] = yaml.safe_load(openapi_text())


def inlined(schema: Any) -> Any:
    """An OpenAPI 3.0 schema as JSON Schema: references replaced, ``nullable`` spelled out."""
    if isinstance(schema, list):
        return [inlined(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target: Any = SPEC
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return inlined(copy.deepcopy(target))
    result = {name: inlined(value) for name, value in schema.items() if name != "nullable"}
    if schema.get("nullable"):
        result["type"] = [result["type"], "null"]
    return result


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """(method, path) of every operation described."""
    return {
        (method.upper(), path): operation
        for path, item in SPEC["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


OPERATIONS = operations()


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The description of what ``method path`` is, None when there is none."""
    for (known, template), operation in OPERATIONS.items():
        pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(template))
        if known == method and re.fullmatch(pattern, path):
            return operation
    return None


@dataclass
class Answer:
    """One response."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error answer."""
        return str(self.json["error"]["code"])


def check(method: str, path: str, answer: Answer, params: str = "") -> None:
    """Hold an answer against the description. Raises ``AssertionError`` or jsonschema's ``ValidationError``."""
    assert answer.status != 500, answer.body
    assert answer.headers[API_HEADER] == SPEC["info"]["version"], (method, path, answer)
    media = answer.headers.get("Content-Type", "").split(";")[0]
    if answer.status >= 400 and (path, answer.status) != ("/v1/health", 503):
        assert media == "application/json", (method, path, answer)
        jsonschema.validate(answer.json, inlined(SPEC["components"]["schemas"]["Error"]))
    operation = operation_of(method, path)
    if operation is None:
        assert answer.status in (401, 404, 405), (method, path, answer)
        return
    described = operation["responses"].get(str(answer.status))
    if described is None and answer.status in (401, 405):
        return
    described = inlined(described or operation["responses"]["default"])
    if answer.status == 304:
        assert not answer.body
        return
    content = described["content"]
    if media == "application/json" and "application/json" in content:
        jsonschema.validate(answer.json, content["application/json"]["schema"])
        if operation["operationId"] == "readDocument" and "format=json" in params:
            jsonschema.validate(answer.json, inlined(SPEC["components"]["schemas"]["WholeDocument"]))
    elif "*/*" not in content:
        assert media in content, (method, path, media)


class Api:
    """Requests to a served API."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        params: str = "",
        body: bytes | None = None,
        json_body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request exactly as written, check the answer, and return it."""
        if json_body is not None:
            body = json.dumps(json_body).encode()
        url = URL(self.base + path + (f"?{params}" if params else ""), encoded=True)
        async with self.session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
            answer = Answer(response.status, response.headers, await response.read())
        if method != "HEAD":
            check(method, path, answer, params)
        return answer


@contextlib.asynccontextmanager
async def serving(
    node_list: Any, tmp_path: Any, *, max_document: int = 1 << 20, app: web.Application | None = None
) -> AsyncIterator[tuple[Api, ApiServer]]:
    """The API on a Unix socket."""
    server = ApiServer(app or build_app(node_list, local=True, max_document=max_document))
    path = str(tmp_path / "api.sock")
    await server.open_unix(path)
    try:
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path), timeout=timeout) as session:
            yield Api(session, "http://localhost"), server
    finally:
        await asyncio.wait_for(server.close(), 10)


@contextlib.asynccontextmanager
async def serving_tcp(node_list: Any, *, token: str | None = TOKEN) -> AsyncIterator[tuple[Api, ApiServer, Address]]:
    """The API on TCP; requests carry ``token`` unless it is None."""
    server = ApiServer(build_app(node_list, token=TOKEN, max_document=1 << 20))
    # The kernel picks the port.
    where = await server.open_tcp(Address("127.0.0.1", 0))
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            yield Api(session, f"http://{where}"), server, where
    finally:
        await asyncio.wait_for(server.close(), 10)


async def eventually(question: Any, seconds: float = 15.0) -> Any:
    """The first true answer of the coroutine function ``question``."""
    deadline = asyncio.get_running_loop().time() + patient(seconds)
    while True:
        answer = await question()
        if answer:
            return answer
        assert asyncio.get_running_loop().time() < deadline, "it never came true"
        await asyncio.sleep(0.05)
