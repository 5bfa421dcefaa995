# SPDX-License-Identifier: MIT
"""A member of a fleet to test against: an HTTP server that speaks the part of the agent's API that plugins use.

It is a server of its own, on a real socket, so that the client's whole way is tested. What it knows can be set, and
``misbehave`` makes it answer like a broken or hostile machine.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import socket
import socketserver
import ssl
import threading
import time
import typing as t
from urllib.parse import parse_qs, unquote, urlsplit


def node(addr: str, name: str = "", **fields: t.Any) -> dict[str, t.Any]:
    """A NODE of the API, honest unless ``fields`` say otherwise."""
    answer = {
        "addr": addr,
        "port": 8000,
        "name": name,
        "private_data": "",
        "state": "alive",
        "incarnation": 1,
        "sequence": 7,
        "version": "0.1.0",
        "protocol": "UDP",
        "zone": "",
        "sealing": "",
        "last_heard": 0.5,
        "digest": "00112233445566aa",
        "local": False,
        "record_known": True,
    }
    answer.update(fields)
    return answer


class _TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 50


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class FakeMember:
    """Context manager; ``url`` is its endpoint, ``requests`` what it was asked, as (method, path, query, headers)."""

    def __init__(
        self, unix: str = "", token: str = "", tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.token = token
        self.nodes: list[t.Any] = []
        self.status = {"state": "running", "cluster": "default", "version": "0.1.0"}
        self.documents: dict[str, dict[str, t.Any]] = {}
        self.tombstones: dict[str, str] = {}  # key -> version
        self.lagging: dict[str, int] = {}  # member name -> how many more questions it answers with "not yet"
        #: member name -> key -> version and digest, where they differ from what this member holds
        self.holdings: dict[str, dict[str | None, dict[str, str | None]]] = {}
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.misbehave: t.Callable[[t.Any], None] | None = None
        self.isolated = False  # refuses what an isolated member refuses
        self.absent: dict[str, int] = {}  # dead, agent_down -> number of known members in this state
        self.marked = True  # says on every answer that it is an agent's
        self.after_write: t.Callable[[t.Any], None] | None = None
        self.clock = 0
        self.repaired: list[str | None] = []
        self.history: dict[str, list[dict[str, t.Any]]] = {}
        self.applied: dict[str, dict[str, t.Any]] = {}  # member name -> what it tells of applying
        #: The fingerprint that signatures are said to be by, the signed requests, and the versions in their way.
        self.signer = "SHA256:none"
        self.signed: list[dict[str, t.Any]] = []
        self.outdated: list[str] = []
        if unix:
            self._server: t.Any = _UnixServer(unix, _Handler)
            self.url = "unix://" + unix
        else:
            self._server = _TcpServer((host, port), _Handler)
            self.url = "%s://%s:%d" % ("https" if tls else "http", host, self._server.server_address[1])
            if tls:
                self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.member = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> FakeMember:
        self._thread.start()
        return self

    def __exit__(self, *dummy: t.Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def asked(self, method: str, path: str) -> list[tuple[str, str, dict[str, str], dict[str, str]]]:
        """The requests with that method and path."""
        return [request for request in self.requests if request[:2] == (method, path)]

    def put(self, key: str, value: bytes, **about: str) -> dict[str, t.Any]:
        """Store a new version of a document, as a publish elsewhere would."""
        self.clock += 1
        held = {
            "key": key,
            "version": "%016x@198.18.0.11:8000" % self.clock,
            "size": len(value),
            "value": value,
            "digest": "sha256:" + hashlib.sha256(value).hexdigest(),
            "content_type": self._type_of(key, about),
            "author": about.get("author") or "",
            "comment": about.get("comment") or "",
            "published_at": "2026-01-01T00:00:00.000Z",
            "deleted": False,
            "expires": None,
            "batch_size": 1,
            "signed_by": None,
        }
        if about.get("expires_in"):
            then = time.gmtime(time.time() + float(about["expires_in"]))
            held["expires"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", then)
        self.documents[key] = held
        self.history.setdefault(key, []).insert(0, held)
        return held

    def _type_of(self, key: str, about: dict[str, t.Any]) -> str:
        """As an agent finds it when nobody says it."""
        if about.get("content_type"):
            return about["content_type"]
        if key in self.documents:
            return self.documents[key]["content_type"]
        return {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".txt": "text"}.get(about.get("suffix") or "", "raw")

    def held(self, key: str) -> dict[str, t.Any]:
        """Version and digest of a document; a tombstone has no digest, and what never was neither."""
        found = self.documents.get(key)
        return found or {"version": self.tombstones.get(key), "digest": None}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.member: FakeMember = self.server.member  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: t.Any) -> None:
        pass

    def address_string(self) -> str:
        return "test"

    def send_response(self, code: int, message: str | None = None) -> None:
        super().send_response(code, message)
        if self.member.marked:
            self.send_header("X-XDP-Gossip-Api", "1")

    def reply(self, status: int, answer: t.Any, headers: dict[str, str] | None = None) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def error(self, status: int, code: str, **details: t.Any) -> None:
        self.reply(status, {"error": dict(details, code=code, message="for a test: " + code)})

    def serve(self) -> None:
        member = self.member
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        member.requests.append((self.command, parts.path, query, {n.lower(): v for n, v in self.headers.items()}))
        if member.misbehave:
            self.close_connection = True
            try:
                member.misbehave(self)
            except OSError:
                pass  # the client has hung up, as it should
            return
        if member.token and self.headers.get("Authorization") != "Bearer " + member.token:
            self.error(401, "unauthorized")
            return
        unless = self.headers.get("X-XDP-Gossip-Unless")
        assert unless in (None, "isolated") and (unless is None or self.command != "GET")
        if member.isolated and (unless or parts.path == "/v1/convergence"):
            self.error(503, "isolated")
            return
        name = "%s_%s" % (self.command, parts.path.split("/")[2].replace(".", "_"))
        handler = getattr(self, name, None)
        if not parts.path.startswith("/v1/") or handler is None:
            self.error(404, "not_found")
            return
        handler(unquote(parts.path[4:]), query)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = serve

    def GET_status(self, path: str, query: dict[str, str]) -> None:
        self.reply(200, self.member.status)

    def GET_nodes(self, path: str, query: dict[str, str]) -> None:
        states = query.get("state", "alive,suspect").split(",")
        known = ("alive", "suspect", "agent_down", "dead", "left")
        states = list(known) if states == ["all"] else states
        nodes = [
            entry
            for entry in self.member.nodes
            if not isinstance(entry, dict) or entry.get("state") not in known or entry["state"] in states
        ]
        # As the agent does it: a weak tag, which heartbeats alone do not change.
        stable = [
            {name: value for name, value in entry.items() if name not in ("last_heard", "sequence")}
            if isinstance(entry, dict)
            else entry
            for entry in nodes
        ]
        stable.append(self.member.isolated)
        tag = 'W/"%s"' % hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:24]
        if self.headers.get("If-None-Match") == tag:
            self.send_response(304)
            self.send_header("ETag", tag)
            self.end_headers()
            return
        answer = {"nodes": nodes, "revision": 1, "cluster": "default", "digest": "00112233445566aa"}
        self.reply(200, dict(answer, isolated=self.member.isolated), {"ETag": tag})

    def DELETE_nodes(self, path: str, query: dict[str, str]) -> None:
        wanted = path[len("nodes/") :]
        (found,) = [entry for entry in self.member.nodes if "%s:%d" % (entry["addr"], entry["port"]) == wanted]
        self.member.nodes.remove(found)
        self.reply(200, {"forgotten": found})

    def GET_node(self, path: str, query: dict[str, str]) -> None:
        self.reply(200, self.member.nodes[0])

    def PATCH_node(self, path: str, query: dict[str, str]) -> None:
        self.member.nodes[0].update(json.loads(self.body))
        self.reply(200, self.member.nodes[0])

    def POST_node(self, path: str, query: dict[str, str]) -> None:
        verb = path.split("/")[1]
        if verb == "join":
            known = {"%s:%d" % (entry["addr"], entry["port"]) for entry in self.member.nodes}
            new = [text for text in json.loads(self.body)["nodes"] if text not in known]
            for text in new:
                host, _colon, port = text.rpartition(":")
                self.member.nodes.append(node(host.strip("[]"), port=int(port), record_known=False))
            self.reply(200, {"added": len(new)})
            return
        state = {"start": "running", "stop": "paused", "leave": "left"}[verb]
        changed = self.member.status["state"] != state
        self.member.status["state"] = state
        self.reply(200, {"state": state, "changed": changed})

    def GET_documents(self, path: str, query: dict[str, str]) -> None:
        if path == "documents":
            prefix = query.get("prefix", "")
            found = [entry for key, entry in sorted(self.member.documents.items()) if key.startswith(prefix)]
            found = found[: int(query.get("limit", len(found)))]
            listed = [{name: value for name, value in entry.items() if name != "value"} for entry in found]
            self.reply(200, {"documents": listed, "digest": "00112233445566aa", "next_cursor": None})
            return
        held = self.member.documents.get(path[len("documents/") :])
        if "version" in query:
            kept = self.member.history.get(path[len("documents/") :], [])
            held = next((one for one in kept if one["version"] == query["version"]), None)
            if held is None or held["deleted"]:
                self.error(410 if held else 404, "version_deleted" if held else "version_not_found")
                return
        if held is None:
            latest = self.member.tombstones.get(path[len("documents/") :])
            self.error(404, "document_not_found", **({"lineage": [latest]} if latest else {}))
            return
        answer = {name: value for name, value in held.items() if name != "value"}
        answer["lineage"] = [held["version"]]
        answer["value_base64"] = base64.b64encode(held["value"]).decode()
        self.reply(200, answer)

    def _condition_holds(self, held: dict[str, t.Any] | None) -> bool:
        actual = held["version"] if held else None
        expected = self.headers.get("If-Match")
        wanted_absent = self.headers.get("If-None-Match") == "*"
        if (expected is not None and expected != '"%s"' % actual) or (wanted_absent and held):
            self.error(412, "version_mismatch", expected=expected, actual=actual)
            return False
        return True

    def PUT_documents(self, path: str, query: dict[str, str]) -> None:
        key = path[len("documents/") :]
        held = self.member.documents.get(key)
        if not self._condition_holds(held):
            return
        if len(self.body) > 1 << 20:
            self.error(413, "document_too_large", limit=1 << 20)
            return
        self._written(self.member.put(key, self.body, **query), held)

    def POST_documents(self, path: str, query: dict[str, str]) -> None:
        member = self.member
        body = json.loads(self.body)
        signed = "signature" in body
        if signed:
            member.signed.append(body)
            if member.outdated:
                self.error(409, "signature_outdated", lineage=[member.outdated.pop(0)])
                return
        own = {"comment", "signed_at", "signature"} if signed else {"author", "comment"}
        assert set(body) <= own | {"documents"} and 0 < len(body["documents"]) <= 64
        values = []
        for entry in body["documents"]:
            assert not signed or ("content_type" in entry) != ("delete" in entry)
            assert set(entry) <= {
                *(("read", "expires") if signed else ("expires_in", "suffix")),
                "key",
                "value",
                "value_base64",
                "content_type",
                "if_version",
                "if_absent",
                "delete",
            }
            held = member.documents.get(entry["key"])
            actual = held["version"] if held else None
            if ("if_version" in entry and entry["if_version"] != actual) or (entry.get("if_absent") and held):
                self.error(412, "version_mismatch", key=entry["key"], expected=entry.get("if_version"), actual=actual)
                return
            value = entry["value"].encode() if "value" in entry else base64.b64decode(entry.get("value_base64", ""))
            if len(value) > 1 << 20:
                self.error(413, "document_too_large", limit=1 << 20)
                return
            values.append(value)
        answers = []
        for entry, value in zip(body["documents"], values):
            held = member.documents.get(entry["key"])
            about = {"author": body.get("author"), "comment": body.get("comment")}
            about.update({name: entry.get(name) for name in ("content_type", "suffix", "expires_in")})
            written = member.put(entry["key"], value, **about)
            if signed:
                written["signed_by"] = {"signer": "alice", "key": member.signer, "withdrawn": False}
                written["expires"] = entry.get("expires")
            if entry.get("delete"):
                written = dict(written, deleted=True)
                member.tombstones[entry["key"]] = written["version"]
                del member.documents[entry["key"]]
            answer = {name: part for name, part in written.items() if name != "value"}
            answers.append(dict(answer, changed=True, previous_version=held["version"] if held else None))
        if member.after_write:
            member.after_write(self)
            return
        self.reply(200, {"changed": True, "version": answers[0]["version"], "documents": answers})

    def GET_history(self, path: str, query: dict[str, str]) -> None:
        found = self.member.history.get(path[len("history/") :])
        if not found:
            self.error(404, "document_not_found")
            return
        versions = []
        for held in found:
            version = {name: value for name, value in held.items() if name != "value"}
            if query.get("values") == "1":
                version["value_base64"] = base64.b64encode(held["value"]).decode()
            if query.get("diff") == "1":
                version["diff"] = "@@\n"
            versions.append(version)
        self.reply(200, {"key": path[len("history/") :], "versions": versions})

    def POST_rollback(self, path: str, query: dict[str, str]) -> None:
        key, body = path[len("rollback/") :], json.loads(self.body)
        held = self.member.documents.get(key)
        if not self._condition_holds(held):
            return
        kept = [one for one in self.member.history.get(key, []) if one["version"] == body["version"]]
        if not kept:
            self.error(404, "version_not_found")
            return
        about = {"content_type": kept[0]["content_type"], "author": body["author"], "comment": body["comment"]}
        if body.get("expires_in") != "never":
            about["expires_in"] = body.get("expires_in")
        self._written(self.member.put(key, kept[0]["value"], **about), held)

    def POST_repair(self, path: str, query: dict[str, str]) -> None:
        self.member.repaired.append(json.loads(self.body).get("key"))
        asked = len(self.member.holdings)
        self.member.holdings.clear()
        self.reply(200, {"asked": asked})

    def GET_rendered(self, path: str, query: dict[str, str]) -> None:
        self.reply(200, {"templates": [{"name": "nginx", "state": "applied"}]})

    def DELETE_documents(self, path: str, query: dict[str, str]) -> None:
        if not set(query) <= {"author", "comment"}:
            self.error(400, "unknown_parameter")
            return
        key = path[len("documents/") :]
        held = self.member.documents.get(key)
        if not self._condition_holds(held):
            return
        tombstone = self.member.put(key, b"", **query)
        tombstone["deleted"] = True
        self.member.tombstones[key] = tombstone["version"]
        del self.member.documents[key]
        self._written(tombstone, held)

    def _written(self, written: dict[str, t.Any], held: dict[str, t.Any] | None) -> None:
        if self.member.after_write:
            self.member.after_write(self)
            return
        answer = {name: value for name, value in written.items() if name != "value"}
        self.reply(200, dict(answer, changed=True, previous_version=held["version"] if held else None))

    def GET_convergence(self, path: str, query: dict[str, str]) -> None:
        """Members hold what this one does, except for ``lagging`` (not yet) and ``holdings`` (something else)."""
        member, key, deleted = self.member, query.get("key"), query.get("deleted") == "1"
        whole = {"version": None, "digest": "00112233445566aa"}
        held = whole if key is None else member.held(key)
        results = []
        for entry in member.nodes:
            late = member.lagging.get(entry["name"], 0) > 0
            if late:
                member.lagging[entry["name"]] -= 1
            found = member.holdings.get(entry["name"], {}).get(key, held)
            version, digest = found["version"], found["digest"]
            wanted = query.get("version") or (None if deleted or "digest" in query else held["version"])
            if deleted:
                holds = digest is None and (wanted is None or (version or "") >= wanted)
            else:
                holds = query.get("digest") in (None, digest) and wanted in (None, version)
            results.append(
                {
                    "addr": entry["addr"],
                    "port": entry["port"],
                    "name": entry["name"],
                    "state": entry["state"],
                    "holds": holds and not late,
                    "version": None if late else version,
                    "digest": None if late else digest,
                    "deleted": version is not None and digest is None,
                    "reason": "no answer yet" if late else "" if holds else "holds version %s" % version,
                }
            )
        if query.get("applied") == "1":
            for result in results:
                told = member.applied.get(result["name"], {"state": "none", "version": None, "error": ""})
                result["applied"] = dict(told, version=result["version"] if told["state"] != "none" else None)
        confirmed = sum(
            1
            for result in results
            if result["holds"] and result.get("applied", {}).get("state", "none") in ("none", "applied")
        )
        known = len(results) + sum(member.absent.values())
        need = {"all": len(results), "majority": known // 2 + 1}.get(query["wait"])
        need = int(query["wait"]) if need is None else need
        self.reply(
            200,
            {
                "converged": confirmed >= need,
                "members": len(results),
                "known": known,
                "dead": member.absent.get("dead", 0),
                "agent_down": member.absent.get("agent_down", 0),
                "confirmed": confirmed,
                "elapsed": 0.0,
                "digest": "00112233445566aa",
                "results": results,
            },
        )


def free_port() -> int:
    """A port where nobody listens (just now)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
