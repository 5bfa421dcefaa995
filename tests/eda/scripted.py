# SPDX-License-Identifier: MIT
"""A member that answers as a test tells it to: the four calls that the event source uses, or plain misbehaviour."""

from __future__ import annotations

import http.server
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

DIGEST = "00112233445566aa"


def node(last: int, state: str = "alive", **fields: Any) -> dict[str, Any]:
    """A NODE of the API at 198.18.0.``last``."""
    return {
        "addr": f"198.18.0.{last}",
        "port": 8000,
        "name": f"web{last}",
        "private_data": "",
        "state": state,
        "incarnation": 1,
        "sequence": 10,
        "version": "0.1.0",
        "protocol": "UDP",
        "zone": "",
        "last_heard": 0.1,
        "digest": DIGEST,
        "local": False,
        "record_known": True,
        **fields,
    }


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: a source that is cancelled hangs up in the middle."""


class Scripted:
    """Context manager; ``url`` is its endpoint, ``asked`` the paths it was asked for (and when), ``headers`` the last.

    ``change`` rings the bell. ``misbehave(handler)``, when set, answers instead. ``tls`` makes it an https server.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.nodes: list[Any] = [node(11, local=True)]
        self.isolated = False
        self.documents: list[Any] = []
        self.cluster = "default"
        self.revision = 1000
        self.converged = True
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.headers: dict[str, str] = {}
        self.misbehave: Callable[[Any], None] | None = None
        self.closing = False
        #: The oldest revision from which the feed can still go on, and what it holds.
        self.oldest = 0
        self.changes: list[Any] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.member = self  # type: ignore[attr-defined]
        if tls is not None:
            # The handshake belongs into the connection's own thread: it may never end.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing = True
        self._server.shutdown()
        self._server.server_close()

    def change(self, nodes: list[Any]) -> None:
        """List other nodes from now on."""
        self.nodes = nodes
        self.revision += 1

    def count(self, path: str) -> int:
        """How many times this path was asked for."""
        return sum(1 for asked in self.asked if asked == path)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        member: Scripted = self.server.member  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        member.asked.append(parts.path)
        member.asked_at.append(time.monotonic())
        member.headers = dict(self.headers.items())
        if member.misbehave is not None:
            self.close_connection = True
            try:
                member.misbehave(self)
            except OSError:
                pass  # the source has hung up, as it should
            return
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        answers: dict[str, Callable[[dict[str, str]], Any]] = {
            "/v1/nodes": lambda _: {
                "isolated": member.isolated,
                "nodes": member.nodes,
                "revision": member.revision,
                "cluster": member.cluster,
                "digest": DIGEST,
            },
            "/v1/documents": lambda _: {"documents": member.documents, "digest": DIGEST},
            "/v1/convergence": lambda _: {"converged": member.converged, "digest": DIGEST, "results": []},
            "/v1/watch": self._watch,
        }
        self.reply(200, answers[parts.path](query))

    def _watch(self, query: dict[str, str]) -> Any:
        member: Scripted = self.server.member  # type: ignore[attr-defined]
        deadline = time.monotonic() + float(query["timeout"])
        while time.monotonic() < deadline and not member.closing and member.revision == int(query["since"]):
            time.sleep(0.01)
        gap = int(query["since"]) < member.oldest or int(query["since"]) > member.revision
        changes, member.changes = member.changes, []
        return {"revision": member.revision, "gap": gap, "changes": [] if gap else changes}

    def reply(self, status: int, answer: Any, **headers: str) -> None:
        """A whole answer; ``answer`` is bytes, or becomes JSON."""
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
