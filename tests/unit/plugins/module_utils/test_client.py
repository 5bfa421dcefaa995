# SPDX-License-Identifier: MIT
"""The HTTP client: failover, authentication, TLS, and answers that never end or are too much."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _client
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import (
    ApiError,
    BadAnswer,
    Client,
    Unreachable,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError, Settings
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port


def client(*urls: str, **options: t.Any) -> Client:
    options.setdefault("timeout", 5)
    options.setdefault("retries", 0)
    return Client(Settings(dict(options, endpoints=list(urls))))


class RawServer:
    """Answers every connection with what ``speak(sock)`` writes, whatever was asked."""

    def __init__(self, speak: t.Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._speak = speak
        self.connections = 0
        self._stop = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _peer = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(5)
            try:
                self._speak(sock)
            except OSError:
                pass

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *dummy: t.Any) -> None:
        self._stop.set()
        self._listener.close()


def drip(text: bytes, pause: float) -> t.Callable[[socket.socket], None]:
    """Write ``text`` one byte at a time, for 20 seconds at most."""

    def speak(sock: socket.socket) -> None:
        end = time.monotonic() + 20
        for byte in text:
            if time.monotonic() > end:
                return
            sock.sendall(bytes((byte,)))
            time.sleep(pause)

    return speak


def test_answers_over_tcp_and_unix_socket(tmp_path):
    with FakeMember() as tcp, FakeMember(unix=str(tmp_path / "api.sock")) as unix:
        for member in (tcp, unix):
            response = client(member.url).request("GET", "/v1/status")
            assert response.json()["state"] == "running"
            assert response.endpoint == member.url


def test_token_goes_over_tcp_but_not_over_a_unix_socket(tmp_path):
    with FakeMember(token="secret") as tcp, FakeMember(unix=str(tmp_path / "api.sock")) as unix:
        client(tcp.url, token="secret").request("GET", "/v1/status")
        client(unix.url, token="secret").request("GET", "/v1/status")
        assert tcp.requests[0][3]["authorization"] == "Bearer secret"
        assert "authorization" not in unix.requests[0][3]


def test_token_file_is_stripped(tmp_path):
    (tmp_path / "token").write_text(" secret\n")
    with FakeMember(token="secret") as member:
        assert client(member.url, token_file=str(tmp_path / "token")).request("GET", "/v1/status").status == 200


@pytest.mark.parametrize(
    "options, said",
    [
        ({"token": "a", "token_file": "/b"}, "only one of them"),
        ({"token": "a b"}, "printable ASCII"),
        ({"token": "a\r\nX-Evil: 1"}, "printable ASCII"),
        ({"token_file": "/does/not/exist"}, "/does/not/exist"),
        ({"token_file": "/dev/null"}, "empty"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"endpoints": []}, "at least one"),
        ({"retries": 1000}, "retries"),
        ({"client_key": "/k"}, "client_cert"),
        ({"endpoints": ["ftp://h"]}, "unix:///path"),
        ({"endpoints": ["unix://relative"]}, "unix:///absolute/path"),
        ({"endpoints": ["http://user:pw@h:1"]}, "only a host and a port"),
        ({"endpoints": ["http://h:1/v1"]}, "only a host and a port"),
        ({"endpoints": ["http://h:99999"]}, "99999"),
        ({"endpoints": ["http://[::1"]}, "http://[::1"),
        ({"endpoints": [""]}, "unix:///path"),
    ],
)
def test_bad_settings_name_the_option(options, said):
    with pytest.raises(ConfigError) as caught:
        Settings(options)
    assert said in str(caught.value)


def test_endpoint_defaults():
    settings = Settings({})
    assert settings.endpoints[0].path == "/run/xdp-gossip/api.sock"
    endpoint = Settings({"endpoints": ["https://[fd00::1]"]}).endpoints[0]
    assert (endpoint.host, endpoint.port, endpoint.authority) == ("fd00::1", 8001, "[fd00::1]:8001")


def test_next_endpoint_when_the_first_is_dead_and_then_stays_there():
    lines = []
    dead = "http://127.0.0.1:%d" % free_port()
    with FakeMember() as member:
        asked = Client(Settings({"endpoints": [dead, member.url], "timeout": 1}), log=lines.append)
        for _turn in range(3):
            assert asked.request("GET", "/v1/status").endpoint == member.url
        assert lines == ["%s: Connection refused; %s answered instead" % (dead, member.url)]
    assert asked.endpoint == member.url
    assert asked.attempts == [{"endpoint": dead, "reason": "Connection refused"}]


def test_after_one_that_refuses_and_one_that_is_silent_the_next_is_asked():
    with RawServer(lambda sock: time.sleep(5)) as silent, FakeMember() as member:
        asked = client("http://127.0.0.1:%d" % free_port(), silent.url, member.url, timeout=1)
        assert asked.request("GET", "/v1/status").endpoint == member.url
        assert [attempt["reason"] for attempt in asked.attempts] == [
            "Connection refused",
            "no complete answer within 1 s",
        ]


def test_every_retry_says_why_and_how_many_are_left():
    lines = []
    dead = "http://127.0.0.1:%d" % free_port()
    asked = Client(Settings({"endpoints": [dead, "unix:///does/not/exist"], "timeout": 1, "retries": 2}), lines.append)
    with pytest.raises(Unreachable):
        asked.request("GET", "/v1/status")
    failed = "%s: Connection refused; unix:///does/not/exist: No such file or directory" % dead
    assert lines == [
        "no member answered: %s; 2 retries left, the next in 0.3 s" % failed,
        "no member answered: %s; 1 retry left, the next in 0.6 s" % failed,
    ]
    assert len(asked.attempts) == 2  # each endpoint and reason once


def test_who_refused_is_not_asked_again_and_not_waited_for():
    lines = []
    with FakeMember(token="secret") as closed:
        with pytest.raises(Unreachable):
            Client(Settings({"endpoints": [closed.url], "retries": 9}), log=lines.append).request("GET", "/v1/status")
        assert len(closed.requests) == 1
    assert not [line for line in lines if "retries left" in line]


def test_a_name_that_is_not_resolved_in_time(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *dummy, **more: time.sleep(4) or [])
    with pytest.raises(Unreachable, match="not resolved in time"):
        client("http://slow.example:8001", timeout=0.5).request("GET", "/v1/status")


@pytest.mark.parametrize("host", ["bad..name", "a" * 64 + ".example"])
def test_a_name_that_cannot_be_resolved(host):
    with pytest.raises(Unreachable, match="cannot be resolved"):
        client("http://%s:8001" % host, timeout=5).request("GET", "/v1/status")


def test_unreachable_lists_every_endpoint_and_why(tmp_path):
    dead = "http://127.0.0.1:%d" % free_port()
    nowhere = "unix://%s/none.sock" % tmp_path
    with FakeMember(token="secret") as member, pytest.raises(Unreachable) as caught:
        client(dead, nowhere, member.url, token="wrong").request("GET", "/v1/status")
    reasons = dict(caught.value.attempts)
    assert "refused" in reasons[dead]
    assert "No such file" in reasons[nowhere]
    assert reasons[member.url] == "answered 401 unauthorized (the token was refused)"
    for url in (dead, nowhere, member.url):
        assert url in str(caught.value)


FORBIDDEN = b'{"error": {"code": "forbidden", "message": "POST /v1/node/stop needs the right admin"}}'


def forbid(sock):
    sock.recv(1000)
    head = b"HTTP/1.1 403 no\r\nX-XDP-Gossip-Api: 1\r\nContent-Length: %d\r\n\r\n" % len(FORBIDDEN)
    sock.sendall(head + FORBIDDEN)


def test_a_missing_right_is_an_answer():
    with RawServer(forbid) as server, pytest.raises(ApiError) as caught:
        asking = client(server.url, "http://127.0.0.1:%d" % free_port(), timeout=3, retries=0)
        asking.request("POST", "/v1/node/stop", body=b"")
    assert (caught.value.status, caught.value.code) == (403, "forbidden")
    assert caught.value.message == "POST /v1/node/stop needs the right admin"
    reason = asking.attempts[0]["reason"]
    assert reason == "answered 403 forbidden (POST /v1/node/stop needs the right admin)"


def test_a_member_that_knows_the_token_is_found():
    with RawServer(forbid) as server, FakeMember() as member:
        assert client(server.url, member.url, timeout=3).request("GET", "/v1/status").endpoint == member.url


def test_retries_go_round_the_list_but_not_to_who_refused():
    def refuse(handler):
        handler.error(503, "starting")

    with FakeMember() as busy, FakeMember(token="secret") as closed:
        busy.misbehave = refuse
        with pytest.raises(Unreachable):
            client(busy.url, closed.url, retries=2).request("GET", "/v1/status")
        assert len(busy.requests) == 3
        assert len(closed.requests) == 1


def test_a_client_error_is_final_and_tells_the_details():
    with FakeMember() as first, FakeMember() as second:
        with pytest.raises(ApiError) as caught:
            client(first.url, second.url).request("PUT", "/v1/documents/a", body=b"x", headers={"If-Match": '"1"'})
        assert (caught.value.status, caught.value.code) == (412, "version_mismatch")
        assert caught.value.details == {"expected": '"1"', "actual": None}
        assert not second.requests


def test_a_long_body_refused_early_is_still_understood():
    def too_large(sock):
        sock.recv(1000)
        body = b'{"error": {"code": "document_too_large", "message": "too much"}}'
        sock.sendall(b"HTTP/1.1 413 no\r\nX-XDP-Gossip-Api: 1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        sock.shutdown(socket.SHUT_WR)
        time.sleep(0.2)  # else the kernel answers the rest of the body with a reset that overtakes the answer

    with RawServer(too_large) as server, pytest.raises(ApiError) as caught:
        client(server.url, timeout=3).request("PUT", "/v1/documents/a", body=bytes(8 << 20))
    assert caught.value.code == "document_too_large"


@pytest.mark.parametrize(
    "speak",
    [
        pytest.param(lambda sock: time.sleep(5), id="says nothing"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\n" * 40, 0.1), id="status line drips"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400, 0.05), id="header drips"),
        pytest.param(drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 40, 0.02), id="continue forever"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"a" * 900, 0.02), id="body drips"),
        pytest.param(
            drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 200, 0.01), id="chunks drip"
        ),
    ],
)
def test_slow_answers_end_with_the_deadline(speak):
    with RawServer(speak) as server:
        with pytest.raises(Unreachable) as caught:
            client(server.url, timeout=1).request("GET", "/v1/status")
    assert "no complete answer within 1 s" in str(caught.value)


def test_an_endless_answer_ends_at_the_bound(monkeypatch):
    monkeypatch.setattr(_client, "MAX_BODY", 1 << 20)
    sent = []

    def flood(sock):
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent.append(sock.send(b"a" * 65536))

    with RawServer(flood) as server, pytest.raises(Unreachable) as caught:
        client(server.url, timeout=10).request("GET", "/v1/status")
    assert "longer than 1048576 bytes" in str(caught.value)
    assert sum(sent) < 64 << 20


@pytest.mark.parametrize(
    "raw, said",
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na", "gzip"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "broke off"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", "not an HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP answer"),
        (b"", "not an HTTP answer"),
    ],
)
def test_unusable_answers_go_to_the_next_endpoint(raw, said):
    def speak(sock):
        sock.recv(4096)
        sock.sendall(raw)

    with RawServer(speak) as server:
        with pytest.raises(Unreachable) as caught:
            client(server.url).request("GET", "/v1/status")
        assert said in str(caught.value)
        with FakeMember() as member:
            assert client(server.url, member.url).request("GET", "/v1/status").endpoint == member.url


NOT_MODIFIED = b'HTTP/1.1 304 Not Modified\r\nX-XDP-Gossip-Api: 1\r\nETag: W/"a"\r\n\r\n'


def test_not_modified_answers_only_who_holds_the_answer():
    with RawServer(lambda sock: sock.recv(65536) and sock.sendall(NOT_MODIFIED)) as server:
        answer = client(server.url).request("GET", "/v1/nodes", held={server.url: 'W/"a"'})
        assert (answer.status, answer.body) == (304, b"")
        with pytest.raises(Unreachable, match="304"):
            client(server.url).request("GET", "/v1/nodes")
        with pytest.raises(Unreachable, match="304"):
            client(server.url).request("PUT", "/v1/documents/a", headers={"If-None-Match": "*"})


def test_an_entity_tag_goes_only_to_the_endpoint_that_gave_it():
    with FakeMember() as first, FakeMember() as second:
        held = {second.url: 'W/"a"'}
        client(first.url, second.url).request("GET", "/v1/nodes", held=held)
        client(second.url, first.url).request("GET", "/v1/nodes", held=held)
        assert "if-none-match" not in first.requests[0][3] and second.requests[0][3]["if-none-match"] == 'W/"a"'


@pytest.mark.parametrize("repeatable", [True, False])
def test_an_unanswered_write_is_repeated_only_when_that_is_safe(repeatable):
    def hang_up(sock):
        sock.recv(4096)

    with RawServer(hang_up) as broken, FakeMember() as member:
        asked = client(broken.url, member.url)
        if repeatable:
            asked.request("PUT", "/v1/documents/a", body=b"x")
            assert member.documents["a"]["value"] == b"x"
            return
        with pytest.raises(Unreachable) as caught:
            asked.request("PUT", "/v1/documents/a", body=b"x", repeatable=False)
        assert caught.value.maybe_applied
        assert not member.requests


@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": %s}' % (b"9" * 5000),
        b"[" * 100000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"a": "\xff"}',
        b"",
    ],
)
def test_bad_json_is_a_bad_answer(body):
    with FakeMember() as member:
        member.misbehave = lambda handler: handler.reply(200, body)
        with pytest.raises(BadAnswer) as caught:
            client(member.url).request("GET", "/v1/status").json()
        assert len(str(caught.value)) < 400


def test_a_json_bomb_is_refused_before_it_is_built():
    with FakeMember() as member:
        member.misbehave = lambda handler: handler.reply(200, b"[" + b"[]," * 6000000 + b"1]")
        with pytest.raises(BadAnswer) as caught:
            client(member.url, timeout=20).request("GET", "/v1/status").json()
        assert "values" in str(caught.value)


def test_what_a_server_says_is_printable_in_a_message():
    def scold(handler):
        handler.reply(400, json.dumps({"error": {"code": "x", "message": "\x1b[31m\n" + "a" * 9999}}).encode())

    with FakeMember() as member:
        member.misbehave = scold
        with pytest.raises(ApiError) as caught:
            client(member.url).request("GET", "/v1/status")
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with FakeMember() as member:
        assert client(member.url).request("GET", "/v1/status").status == 200


class Authorities:
    """Two authorities; one vouches for a member and for a client, the other for another client."""

    def __init__(self, directory) -> None:
        self._directory = directory
        for name in ("fleet", "other"):
            self._make(name, "req", "-x509", "-subj", "/CN=%s authority" % name, "-addext", "keyUsage=keyCertSign")
        self._sign("member", "fleet", "subjectAltName=IP:127.0.0.1")
        self._sign("client", "fleet", "extendedKeyUsage=clientAuth")
        self._sign("stranger", "other", "extendedKeyUsage=clientAuth")

    def __getitem__(self, name: str) -> str:
        """Path of ``<name>.pem`` (certificate) or ``<name>.key``."""
        return str(self._directory / (name if "." in name else name + ".pem"))

    def _make(self, name: str, *options: str) -> None:
        openssl(
            *options,
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-keyout",
            self[name + ".key"],
            "-out",
            self[name],
        )

    def _sign(self, name: str, authority: str, extension: str) -> None:
        openssl(
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=" + name,
            "-keyout",
            self[name + ".key"],
            "-out",
            self[name + ".csr"],
        )
        # Python 3.13 and later want certificates to be complete (RFC 5280, 4.2.1).
        (self._directory / "extension").write_text(extension + "\nauthorityKeyIdentifier=keyid\n")
        openssl(
            "x509",
            "-req",
            "-in",
            self[name + ".csr"],
            "-CA",
            self[authority],
            "-CAkey",
            self[authority + ".key"],
            "-CAcreateserial",
            "-days",
            "1",
            "-extfile",
            str(self._directory / "extension"),
            "-out",
            self[name],
        )


def openssl(*arguments: str) -> None:
    subprocess.run(("openssl",) + arguments, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)


@pytest.fixture(scope="module", name="pem")
def fixture_pem(tmp_path_factory):
    return Authorities(tmp_path_factory.mktemp("tls"))


def tls_member(pem, client_ca: str = "") -> FakeMember:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem["member"], pem["member.key"])
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pem[client_ca])
    return FakeMember(tls=context)


def test_tls_is_verified_unless_told_otherwise(pem, tmp_path):
    with tls_member(pem) as member:
        for options in ({}, {"ca_path": pem["other"]}):
            with pytest.raises(Unreachable, match="certificate not accepted"):
                client(member.url, timeout=3, **options).request("GET", "/v1/status")
        assert client(member.url, timeout=3, ca_path=pem["fleet"]).request("GET", "/v1/status").status == 200
        assert client(member.url, timeout=3, validate_certs=False).request("GET", "/v1/status").status == 200
        wrong_name = member.url.replace("127.0.0.1", "localhost")
        with pytest.raises(Unreachable, match="certificate not accepted"):
            client(wrong_name, timeout=3, ca_path=pem["fleet"]).request("GET", "/v1/status")


def test_a_directory_of_authorities(pem, tmp_path):
    openssl("x509", "-in", pem["fleet"], "-out", str(tmp_path / "fleet.pem"))
    openssl("rehash", str(tmp_path))
    with tls_member(pem) as member:
        assert client(member.url, timeout=3, ca_path=str(tmp_path)).request("GET", "/v1/status").status == 200


@pytest.mark.parametrize(
    "given, let_in",
    [
        ({}, False),
        ({"client_cert": "client", "client_key": "client.key"}, True),
        ({"client_cert": "both"}, True),
        ({"client_cert": "stranger", "client_key": "stranger.key"}, False),
    ],
)
def test_a_client_certificate_is_shown(pem, given, let_in):
    with open(pem["both"], "w") as both:
        for name in ("client", "client.key"):
            with open(pem[name]) as part:
                both.write(part.read())
    options = {option: pem[name] for option, name in given.items()}
    with tls_member(pem, client_ca="fleet") as member:
        asked = client(member.url, timeout=3, ca_path=pem["fleet"], **options)
        if let_in:
            assert asked.request("GET", "/v1/status").status == 200
            return
        with pytest.raises(Unreachable) as caught:
            asked.request("GET", "/v1/status")
        assert member.url in str(caught.value) and not member.requests


def test_a_key_that_does_not_belong_to_the_certificate_is_named(pem):
    with tls_member(pem, client_ca="fleet") as member, pytest.raises(ConfigError, match="client_cert"):
        options = {"client_cert": pem["client"], "client_key": pem["stranger.key"]}
        client(member.url, ca_path=pem["fleet"], **options).request("GET", "/v1/status")


@pytest.mark.parametrize("option", ["ca_path", "client_cert"])
def test_a_missing_tls_file_is_named(option):
    with FakeMember() as member, pytest.raises(ConfigError) as caught:
        client(member.url.replace("http:", "https:"), **{option: "/does/not/exist.pem"}).request("GET", "/v1/status")
    assert option in str(caught.value) and "/does/not/exist.pem" in str(caught.value)


def test_the_wrong_scheme_is_a_failed_endpoint(pem):
    with tls_member(pem) as tls, FakeMember() as clear, FakeMember() as member:
        asked = client(tls.url.replace("https", "http"), clear.url.replace("http", "https"), member.url)
        assert asked.request("GET", "/v1/status").endpoint == member.url
    assert len(asked.attempts) == 2 and "is it http:// there?" in asked.attempts[1]["reason"]


def test_a_silent_tls_server_does_not_hang():
    with RawServer(lambda sock: time.sleep(5)) as server:
        with pytest.raises(Unreachable, match="within 1 s"):
            client(server.url.replace("http:", "https:"), timeout=1).request("GET", "/v1/status")


def settling(told):
    """A member that never answers a write, and to the question what became of it says ``told``."""
    heads = []

    def speak(sock):
        head = sock.recv(65536)
        heads.append(head.decode())
        if not head.startswith(b"DELETE /v1/requests/"):
            return
        body = json.dumps(told).encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nX-XDP-Gossip-Api: 1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return RawServer(speak), heads


def test_a_lost_answer_is_learnt_afterwards():
    answer = {"changed": True, "key": "a"}
    server, heads = settling({"id": "x", "state": "done", "status": 200, "answer": answer})
    with server as member, FakeMember() as other:
        asked = client(member.url, other.url)
        got = asked.request("PUT", "/v1/documents/a", body=b"x", repeatable=False)
        assert (got.status, got.json(), got.endpoint) == (200, answer, member.url)
        assert not other.requests
    sent = dict(line.split(": ", 1) for line in heads[0].split("\r\n") if ": " in line)
    assert 0 < float(sent["X-XDP-Gossip-Timeout"]) < 5
    assert heads[1].startswith("DELETE /v1/requests/%s " % sent["X-XDP-Gossip-Request-Id"])


def test_a_write_that_was_given_up_may_go_to_the_next_member():
    server, _heads = settling({"id": "x", "state": "cancelled", "status": None, "answer": None})
    with server as member, FakeMember() as other:
        asked = client(member.url, other.url)
        asked.request("PUT", "/v1/documents/a", body=b"x", repeatable=False)
        assert other.documents["a"]["value"] == b"x"
        assert "given up" in asked.attempts[0]["reason"]
    with settling({"id": "x", "state": "cancelled", "status": None, "answer": None})[0] as member:
        with pytest.raises(Unreachable) as caught:
            client(member.url).request("DELETE", "/v1/documents/a")
        assert not caught.value.maybe_applied


def test_each_attempt_at_one_member_has_the_same_id_until_it_is_given_up():
    server, heads = settling({"id": "x", "state": "pending"})
    with server as member:
        with pytest.raises(Unreachable) as caught:
            client(member.url, retries=1).request("POST", "/v1/documents", body=b"{}")
        assert caught.value.maybe_applied and "may still take effect" in str(caught.value)
    writes = [head for head in heads if head.startswith("POST")]
    assert len(writes) == 2
    ids = {line for head in writes for line in head.split("\r\n") if line.startswith("X-XDP-Gossip-Request-Id")}
    assert len(ids) == 1
