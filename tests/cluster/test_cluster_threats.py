# SPDX-License-Identifier: MIT
"""Attackers of docs/security.md against three live agents: who records packets, who was a member, who holds a token."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.cluster.packets import Recorder, address, grown, rejected, send_at_rate, send_frames
from tests.support.fleet import SECRET, Agent, Cluster, eventually
from tests.support.keys import OTHER_KEY, with_id
from tests.support.process import Answer
from xdp_gossip import AsyncNodeList, Node
from xdp_gossip.api.info import openapi_text
from xdp_gossip.config.access import hash_of
from xdp_gossip.wire.keys import derive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: What a recording must not show: a key, a content, a comment, a node's name and its private data.
VISIBLE = ("visible-key", "visible-content", "visible-comment", "visible-name", "visible-data")
TOKENS = {"reader": "a-token-that-may-read", "shop": "a-token-that-may-write", "root": "a-token-that-may-do-all"}
OPERATIONS = [
    (method.upper(), path)
    for path, item in yaml.safe_load(openapi_text())["paths"].items()
    for method in item
    if method != "parameters"
]
#: Documents that the recorder sees in their first and second version, and a document that it sees before its deletion.
CHANGED, DELETED = "visible-key/changed", "visible-key/deleted"


# -- who records packets -----------------------------------------------------------------------------------------


async def recorded(cluster: Cluster) -> list[bytes]:
    """All packets of two members that come, see documents in former versions, and go: one leaves, one is just gone."""
    seed = address(cluster[0])
    subnet = seed.ip.rpartition(".")[0]
    nodes = [Node(f"{subnet}.{100 + number}", seed.port, f"visible-name{number}", "visible-data") for number in (0, 1)]
    recorders = [Recorder(node, seed) for node in nodes]
    try:
        for recorder in recorders:
            await recorder.join()
        await recorders[1].publish(b"visible-content of a member", "visible-key/recorder", comment="visible-comment")
        for value in (b"visible-content 1", b"visible-content 2", b"visible-content" * 4000):
            for key in (CHANGED, DELETED):
                await asyncio.to_thread(cluster[0].publish, key, value)

                def arrived(key: str = key, value: bytes = value) -> bool:
                    held = [recorder.document(key) for recorder in recorders]
                    return all(document is not None and document.value == value for document in held)

                await reached(arrived)
        await recorders[0].leave()
        await reached(lambda: any(len(packet) > 10_000 for packet in recorders[0].recording))
    finally:
        for recorder in recorders:
            await recorder.close()
    return [packet for recorder in recorders for packet in recorder.recording]


async def reached(true: Callable[[], bool]) -> None:
    """Wait until it is true; the test's own time is the net."""
    while not true():  # noqa: ASYNC110 - what others send changes it, and nothing tells of that
        await asyncio.sleep(0.05)


def recorders(agent: Agent) -> dict[str, str]:
    """The states of the recorders."""
    nodes = agent.nodes("all")
    return {node["name"][-1]: node["state"] for node in nodes if node["name"].startswith("visible-name")}


def replay(recording: list[bytes], agents: list[Agent]) -> None:
    """Send the whole recording to agents, as datagrams and as frames, until each has refused most of it."""
    for agent in agents:
        was = agent.counters()
        send_at_rate([packet for packet in recording if len(packet) < 60_000], address(agent))
        for packet in recording:
            send_frames([packet], address(agent))

        def unread(agent: Agent = agent, was: dict[str, int] = was) -> str | None:
            growth = grown(was, agent.counters())
            seen = sum(rejected(growth).values()) + growth["datagrams_dropped_kernel"]
            return None if seen >= len(recording) else f"{agent.name} refused {seen} of 2 x {len(recording)}: {growth}"

        eventually(unread, 30)


def test_a_recording_shows_nothing_and_brings_nothing_back(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    # Within the timeout, the time of a packet refuses no recording: then only windows and incarnations do.
    with Cluster(tmp_path, 3, cycle=0.5, timeout=20) as cluster:
        cluster.form()
        recording = asyncio.run(recorded(cluster))
        old = time.monotonic() + cluster[0].settings["timeout"]
        together = b"".join(recording)
        assert not [word for word in (*VISIBLE, SECRET) if word.encode() in together]
        eventually(lambda: None if all(recorders(one).get("0") == "left" for one in cluster) else "not left", 20)

        cluster[0].publish(CHANGED, b"the last one")
        cluster[1].call("DELETE", f"/v1/documents/{quote(DELETED)}")

        def unchanged(agents: list[Agent] = cluster.agents) -> str | None:
            for agent in agents:
                if (agent.read(CHANGED), agent.read(DELETED)) != (b"the last one", None):
                    return f"{agent.name} has {agent.read(CHANGED)!r} and {agent.read(DELETED)!r}"
                if recorders(agent).get("0") not in ("left", None):
                    return f"{agent.name} has {recorders(agent)}"
            return None

        eventually(unchanged, 20)
        # Agents that have just started have no replay window of a packet that they saw before.
        for agent in cluster:
            agent.kill()
        cluster.start()
        replay(recording, cluster.agents)
        assert unchanged() is None

        # The other one has died meanwhile, or does so now: a recording of its life does not bring it back.
        eventually(lambda: None if all(recorders(one).get("1") == "dead" for one in cluster) else "not dead", 120)
        replay(recording, cluster.agents)
        assert unchanged() is None
        assert {recorders(agent)["1"] for agent in cluster} == {"dead"}

        # A host that lost its disk remembers neither deletions nor the dead. It refuses what is older than the timeout.
        eventually(lambda: None if time.monotonic() > old else "the recording is too young", 60)
        blank = cluster[2]
        assert blank.stop() == 0
        shutil.rmtree(blank.state_dir)
        cluster.start([blank])
        replay(recording, [blank])
        assert recorders(blank).get("1", "dead") == "dead"
        eventually(cluster.disagreement, 30)
        assert unchanged() is None
        assert {recorders(agent).get("1", "dead") for agent in cluster} == {"dead"}
        figure("replayed", f"{len(recording)} packets, 4 times to each agent, and 2 more to one")


# -- who was a member --------------------------------------------------------------------------------------------


class Former(Recorder):
    """A member that kept a secret of before."""

    def __init__(self, node: Node, seed: Node, secret: str) -> None:
        AsyncNodeList.__init__(self, amount=4, cycle=0.5, timeout=2.5, secret_key=secret, listen_addr=node.addr)
        self.recording = []
        self.new(node)
        self.set(seed)


def test_a_former_member_is_an_outsider(tmp_path: Path) -> None:
    with Cluster(tmp_path, 3, cycle=0.5, timeout=2.5) as cluster:
        for agent in cluster:
            del agent.settings["secret_key_file"]
            file = str(agent.write_secret("new.key", OTHER_KEY))
            agent.settings["keys"] = [{"file": file, "state": "active"}]
        cluster.form()
        version = cluster[0].publish("plan", b"of the members")
        before = [agent.versions() for agent in cluster]
        was = cluster[0].counters()

        async def attack(number: int, secret: str, name: str) -> tuple[list[str], list[str]]:
            """Join with an old secret, publish, and ask for documents until ``name`` has grown; what it has then."""
            seed = address(cluster[0])
            own = Node(f"{seed.ip.rpartition('.')[0]}.{100 + number}", seed.port, f"former{number}")
            former = Former(own, Node(seed.ip, seed.port), secret)
            await former.join()
            try:
                await former.publish(b"evil", "plan")
                await former.publish(b"evil", "former")
                while grown(was, await asyncio.to_thread(cluster[0].counters))[name] < 20:
                    await former.publish(os.urandom(8), "former")
                    await asyncio.sleep(0.2)
                known = [member.node.name for member in former.members() if member.node.name.startswith("node")]
                return known, [document.key for document in former.documents() if document.value == b"of the members"]
            finally:
                await former.close()

        assert asyncio.run(attack(1, SECRET, "rx_unknown_key")) == ([], [])
        # Packets of this key name the present one, as both have the same id.
        alike = with_id("default", derive("default", OTHER_KEY).id, OTHER_KEY)
        assert asyncio.run(attack(2, alike, "rx_bad_mac")) == ([], [])
        assert [agent.versions() for agent in cluster] == before
        for agent in cluster:
            assert {node["name"] for node in agent.nodes("all")} == {"node1", "node2", "node3"}
        assert cluster[1].convergence(10, key="plan", version=version)["converged"]


# -- who holds a token -------------------------------------------------------------------------------------------


@pytest.fixture(name="guarded", scope="module")
def fixture_guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three agents with the API on TCP, a page, tokens of all rights, an audit file, and secrets in all settings."""
    with Cluster(tmp_path_factory.mktemp("guarded"), 3, cycle=0.5) as cluster:
        tokens = [
            {"name": "reader", "hash": hash_of(TOKENS["reader"]), "rights": "read"},
            {"name": "shop", "hash": hash_of(TOKENS["shop"]), "rights": "write", "prefixes": ["shop/"]},
            {"name": "root", "hash": hash_of(TOKENS["root"]), "rights": "admin"},
        ]
        for agent in cluster:
            file = agent.write_secret("api.token", "the-token-of-the-file")
            agent.settings["api"].update(
                listen=f"{agent.ip}:{agent.port + 1}",
                token_file=str(file),
                ui=True,
                tokens=tokens,
                audit_file=str(agent.directory / "audit.jsonl"),
            )
        cluster.form()
        cluster[0].publish("shop/rates", b"1")
        cluster[0].publish("other/rates", b"1")
        eventually(cluster.disagreement, 20)
        yield cluster


def over_tcp(agent: Agent, method: str, path: str, token: str | None, body: Any = None, **headers: str) -> Answer:
    """One request to the API's port."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(agent.ip, agent.port + 1, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, fields)
        response = connection.getresponse()
        return Answer(response.status, response.read(), dict(response.getheaders()))
    finally:
        connection.close()


def example(path: str) -> str:
    """A path of the description with something in place of its variables."""
    return path.replace("{key}", "shop/rates").replace("{node}", "127.0.0.1:1").replace("{id}", "request-1")


def test_nothing_that_a_client_may_know_opens_the_api(guarded: Cluster) -> None:
    """Neither the cluster's secret, which each member has, nor a hash, which everybody may have who read a backup."""
    agent = guarded[0]
    was = agent.versions()
    known = ["", " ", SECRET, "default", *(hash_of(token) for token in TOKENS.values())]
    known += [hash_of(token).removeprefix("sha256:") for token in TOKENS.values()]
    known += [TOKENS["root"][:-1], TOKENS["root"] + "x", TOKENS["root"].upper()]
    for token in known:
        for path in ("/v1/documents", "/v1/keys"):
            assert over_tcp(agent, "GET", path, token).status == 401, token
        assert over_tcp(agent, "PUT", "/v1/documents/shop/rates", token, b"evil").status == 401, token
    assert over_tcp(agent, "GET", f"/v1/documents?token={TOKENS['root']}", None).status == 401
    assert over_tcp(agent, "GET", "/v1/documents", None, Cookie=f"token={TOKENS['root']}").status == 401
    assert agent.versions() == was


def test_no_answer_has_a_secret_in_it(guarded: Cluster) -> None:
    """Not even to the token that may do everything, nor in errors, which repeat parts of requests."""
    agent = guarded[0]
    secrets = [SECRET, "the-token-of-the-file", *TOKENS.values(), *(hash_of(token) for token in TOKENS.values())]
    seen = 0
    for method, path in OPERATIONS:
        if method != "GET" or "/egossip" in path or path.startswith("/v1/events"):
            continue
        for query in ("", "?unknown=1"):
            answer = over_tcp(agent, "GET", example(path) + query, TOKENS["root"])
            seen += answer.status == 200
            shown = answer.body.decode(errors="replace") + str(answer.headers)
            assert not [secret for secret in secrets if secret in shown], path
    assert seen > 8
    answers = [
        over_tcp(agent, "GET", "/v1/documents", "another-token"),
        over_tcp(agent, "GET", "/v1/x", TOKENS["root"]),
    ]
    assert not [secret for secret in (*secrets, "another-token") for answer in answers if secret in str(answer)]
    said = agent.log_text() + (agent.directory / "audit.jsonl").read_text()
    assert not [secret for secret in (*secrets, "another-token") if secret in said]


def test_strangers_fill_neither_log_nor_audit_file(guarded: Cluster) -> None:
    agent = guarded[2]
    audit = agent.directory / "audit.jsonl"
    was, counters = len(agent.log_text().splitlines()), agent.counters()
    records = len(audit.read_text().splitlines()) if audit.exists() else 0
    for number in range(200):
        token = None if number % 2 else f"guess{number}"
        assert over_tcp(agent, "PUT", f"/v1/documents/x{number}", token).status == 401
    send_at_rate([os.urandom(100) for _ in range(1000)], address(agent))
    send_frames([os.urandom(100)] * 10, address(agent))

    def uncounted() -> str | None:
        growth = grown(counters, agent.counters())
        seen = sum(rejected(growth).values())
        return None if growth["api_unauthorized"] == 100 and seen >= 1000 else f"{growth}"

    eventually(uncounted, 20)
    # One line and one record a minute for wrong tokens, and one for missing tokens: however long this took, a few.
    assert len(audit.read_text().splitlines()) - records <= 6
    assert len(agent.log_text().splitlines()) - was <= 12


#: Text that would be a line of its own, or a colour, if it reached a log or a terminal as it is.
FORGED = "\n2026-11-30T00:00:00.000Z info xdp_gossip.audit: documents.publish other/rates by root from socket: done\n"


def test_no_client_forges_a_line_of_the_log_or_a_record(guarded: Cluster) -> None:
    agent = guarded[1]
    lines = len(agent.log_text().splitlines())
    path = f"/v1/documents/{quote('shop/' + FORGED, safe='')}"
    query = f"?author={quote(FORGED)}&comment={quote(FORGED + chr(27) + '[31m')}"
    statuses = {over_tcp(agent, "PUT", path + query, TOKENS["shop"], b"x").status for _turn in range(2)}
    statuses |= {over_tcp(agent, "PUT", f"/v1/documents/{quote(FORGED, safe='')}", TOKENS["shop"], b"x").status}
    # No control characters for keys, but lines for many programs, and right-to-left text.
    for separator in ("\u2028", "\x85", "\u202e", ""):
        text = FORGED.replace("\n", separator)
        for key in ("shop/" + text, text):
            statuses |= {over_tcp(agent, "PUT", f"/v1/documents/{quote(key, safe='')}", TOKENS["shop"], b"x").status}
    statuses |= {over_tcp(agent, "DELETE", f"/v1/nodes/{quote(FORGED, safe='')}", TOKENS["root"]).status}
    statuses |= {over_tcp(agent, "GET", f"/v1/{quote(FORGED, safe='')}", "wrong" + FORGED.strip()).status}
    assert 500 not in statuses and 403 in statuses and 401 in statuses, statuses
    added = agent.log_text().splitlines()[lines:]
    assert added and not [line for line in added if line.startswith("2026-11-30T00:00:00.000Z") or "\x1b" in line]
    records = [json.loads(line) for line in (agent.directory / "audit.jsonl").read_text().splitlines()]
    assert records and {record["who"] for record in records} <= {"", "shop", "root", "user:root"}
    shown = agent.command("audit", "--file", str(agent.directory / "audit.jsonl"))
    assert shown.returncode == 0
    text = shown.stdout.decode()
    assert "\x1b" not in text and not [
        line for line in text.splitlines() if line.startswith("2026-11-30T00:00:00.000Z i")
    ]


def test_an_agent_that_is_asked_by_another_site_says_nothing(guarded: Cluster) -> None:
    """What a browser sends for a site of somebody else: no token, its own Origin, and a Host that DNS made the agent's.

    No answer lets the site read it, no preflight permits a request, nothing is set in the browser.
    """
    agent = guarded[2]
    versions = agent.versions()
    node = agent.call("GET", "/v1/node")
    foreign = {"Origin": "http://evil.example", "Host": "evil.example:8001", "Referer": "http://evil.example/x"}
    kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json")
    for method, path in [*OPERATIONS, ("GET", "/ui/"), ("POST", "/ui/")]:
        public = path in ("/v1/health", "/ui/")
        for kind in kinds if method != "GET" else kinds[:1]:
            body = b"" if method == "GET" else b'{"state": "left", "value": "evil"}'
            answer = over_tcp(agent, method, example(path), None, body or None, Content_Type=kind, **foreign)
            assert answer.status == 401 or public, (method, path, answer)
            silent(answer)
        asked = {"Access_Control_Request_Method": method, "Access_Control_Request_Headers": "authorization"}
        answer = over_tcp(agent, "OPTIONS", example(path), None, **foreign, **asked)
        assert answer.status >= 400, (method, path, answer)
        silent(answer)
    # Whoever has a token may ask from anywhere; no other site may read the answer.
    silent(over_tcp(agent, "GET", "/v1/documents", TOKENS["reader"], **foreign))
    for target in ("GET /stop", "GET /start", "GET /nodes", "POST /publish", "CONNECT 127.0.0.1:22", "TRACE /v1/node"):
        method, _space, path = target.partition(" ")
        answer = over_tcp(agent, method, path, None, **foreign)
        assert answer.status in (400, 401, 404, 405), (target, answer)
    assert agent.versions() == versions
    assert {**agent.call("GET", "/v1/node"), "sequence": 0} == {**node, "sequence": 0}  # it counts its own packets


def silent(answer: Answer) -> None:
    """Expect nothing that would open the answer to another site, or leave something in the browser."""
    names = {name.lower() for name in answer.headers}
    assert not [name for name in names if name.startswith("access-control-")], answer
    assert not names & {"set-cookie", "location", "refresh"}, answer


# -- who has an account on the host ------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_local_user_gains_nothing_from_process_socket_and_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("local")
    for directory in (base, base.parent, base.parent.parent):
        directory.chmod(directory.stat().st_mode | 0o011)
    with Cluster(base, 1) as cluster:
        cluster.start()
        agent = cluster[0]
        agent.publish("plan", b"secret")
        assert agent.process is not None
        pid = agent.process.pid
        tries = {
            "the socket": f"import socket; socket.socket(socket.AF_UNIX).connect({str(agent.socket)!r})",
            "the secret": f"open({str(agent.directory / 'secret.key')!r})",
            "the state": f"open({str(agent.state_dir / 'state.db')!r})",
            "its environment": f"open('/proc/{pid}/environ').read()",
            "its memory": f"open('/proc/{pid}/mem', 'rb')",
            "its descriptors": f"import os; os.listdir('/proc/{pid}/fd')",
            "its end": f"import os; os.kill({pid}, 15)",
        }
        for what, code in tries.items():
            words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1 and "PermissionError" in done.stderr, (what, done)
        line = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert SECRET.encode() not in line
        with socket.socket(socket.AF_UNIX) as own:
            own.connect(str(agent.socket))
        assert agent.running and agent.read("plan") == b"secret"
