# SPDX-License-Identifier: MIT
"""The gate of an upgrade: what another member must say of a host, and what it is told when it does not."""

from __future__ import annotations

import importlib.util
import itertools
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from xdp_gossip.core.runs import later

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "plugins" / "module_utils" / "_gate.py"

# Each starts the script, which asks again after a pause.
pytestmark = pytest.mark.slow

Nodes = list[dict[str, Any]]
Serve = Callable[[Callable[[], Nodes]], str]


def node(port: int, **other: Any) -> dict[str, Any]:
    """An entry of a NodeList; the witness is the one with port 1."""
    entry = {"addr": "198.18.0.1", "port": port, "state": "alive", "version": "2", "incarnation": 7}
    return {**entry, "digest": "aa", "local": port == 1, **other}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts an agent's API that lists what a function returns; gives its socket."""
    servers = []

    def start(listed: Callable[[], Nodes]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def address_string(self) -> str:
                return "a Unix socket"

            def log_message(self, *_words: Any) -> None:
                pass

            def do_GET(self) -> None:
                assert self.path == "/v1/nodes?state=all"
                body = json.dumps({"nodes": listed()}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

        path = str(tmp_path / "api.sock")
        server = socketserver.ThreadingUnixStreamServer(path, Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(path: str, **question: Any) -> dict[str, Any]:
    """The answer of the script. A question that waits for nothing has a ``timeout`` far above the one of this call."""
    asked = {"socket": path, "addr": "198.18.0.1", "port": "2", "timeout": 0.5, **question}
    command = [sys.executable, "-I", str(SCRIPT), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


EVERYTHING = {"version": "2", "incarnation": 7, "documents": True}


def test_it_passes(serve: Serve) -> None:
    answer = ask(serve(lambda: [node(1), node(2)]), **EVERYTHING, timeout=600)
    assert answer["passed"] and answer["unmet"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"state": "suspect"}, "expected 198.18.0.1:2 to be alive, sees it suspect"),
        ({"state": "dead"}, "expected 198.18.0.1:2 to be alive, sees it dead"),
        ({"version": "1"}, "expected version 2 of it, sees 1"),
        ({"version": ""}, "expected version 2 of it, sees none"),
        ({"incarnation": 6}, "expected incarnation 7 of it or later, sees 6"),
        ({"digest": "bb"}, "expected it to hold the same documents, sees others (documents digest bb)"),
        ({"port": 3}, "does not know 198.18.0.1:2"),
    ],
)
def test_each_condition_is_told(serve: Serve, entry: dict[str, Any], words: str) -> None:
    answer = ask(serve(lambda: [node(1), {**node(2), **entry}]), **EVERYTHING)
    assert answer["answered"] and not answer["passed"]
    assert answer["unmet"] == [words]


@pytest.mark.parametrize(
    ("shown", "least", "passes"),
    [(7, 7, True), (0, 7, False), (3, 2**32 - 9, True), (2**32 - 9, 3, False), (1_795_000_000, 2**32 - 1, True)],
)
def test_incarnations_are_serial_numbers(serve: Serve, shown: int, least: int, passes: bool) -> None:
    """The last is a host whose clock said 2107 once."""
    answer = ask(serve(lambda: [node(1), node(2, incarnation=shown)]), incarnation=least)
    assert answer["passed"] is passes


def test_the_role_compares_incarnations_as_the_agent_does() -> None:
    spec = importlib.util.spec_from_file_location("own_gate", SCRIPT)
    assert spec is not None and spec.loader is not None
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    numbers = [1, 2, 1_795_000_000, 2**31, 2**31 + 2, 2**32 - 1]
    for now, before in itertools.product(numbers, numbers):
        if (now - before) % 2**32 != 2**31:
            assert own.later(now, before) is later(now, before), (now, before)
        assert own.later(now, -1) is True


def test_what_is_not_asked_for_does_not_count(serve: Serve) -> None:
    answer = ask(serve(lambda: [node(1), node(2, version="", incarnation=0, digest="bb")]))
    assert answer["passed"]


def test_it_waits(serve: Serve) -> None:
    looks = itertools.count(1)

    def recovering() -> Nodes:
        return [node(1), node(2, state="suspect" if next(looks) < 4 else "alive")]

    assert ask(serve(recovering), **EVERYTHING, timeout=600)["passed"]
    assert next(looks) == 5, "it looked again after it had seen what it waits for"


def test_a_state_that_the_witness_has_left_meanwhile_counts(serve: Serve) -> None:
    """Under a stream of publishes the two never show the same digest at the same moment."""
    count = iter(range(1000))

    def moving() -> Nodes:
        number = next(count)
        return [node(1, digest=f"{number:x}"), node(2, digest=f"{number - 1:x}")]

    assert ask(serve(moving), **EVERYTHING, timeout=600)["passed"]


def test_a_state_from_before_the_question_does_not_count(serve: Serve) -> None:
    count = iter(range(1, 1000))
    answer = ask(serve(lambda: [node(1, digest=f"{next(count):x}"), node(2, digest="0")]), **EVERYTHING)
    assert not answer["passed"]


@pytest.mark.parametrize(("timeout", "least"), [(0, 0), pytest.param(600, 5, marks=pytest.mark.slow)])
def test_an_agent_that_never_answers_is_no_witness(tmp_path: Path, timeout: int, least: int) -> None:
    """One that restarts gets a few seconds; a first look at who could be asked does not wait."""
    question = {"socket": str(tmp_path / "none.sock"), "addr": "198.18.0.1", "port": 2, "timeout": timeout}
    command = [sys.executable, "-I", str(SCRIPT), json.dumps(question)]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == "" and "none.sock" in done.stderr
    assert time.monotonic() - begin >= least
