# SPDX-License-Identifier: MIT
"""A large fleet with some trouble behind the real API: 1,000 nodes and 10,000 documents, without 1,000 processes.

``python -m tests.ui.large`` serves it until it is interrupted, for people who want to look at the page.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from dataclasses import replace
from typing import Any

from tests.agent.fake_node_list import LOCAL, Change, FakeNodeList
from tests.support.served import in_thread
from xdp_gossip.api.app import build_app
from xdp_gossip.api.errors import Fault
from xdp_gossip.api.server import ApiServer
from xdp_gossip.core.types import Address, Document, Member, Record, State, Version
from xdp_gossip.node.fleetfiles import FleetFiles
from xdp_gossip.node.shapes import published_at

TOKEN = "a-token-of-the-large-fleet"
_SERVICES = ("nginx", "haproxy", "postgres", "redis", "kafka", "vault", "grafana", "loki")
_START = 1_764_400_000_000
#: A key that looks like ``app/limits``, and one that looks like nothing at all.
UNSEEN_KEYS = ("app/lim\u200bits", "app/\u2800", "app/two  spaces ", "app/\u202etxt.exe")


class LargeFleet(FakeNodeList):
    """``nodes`` members, ``documents`` documents; ``trouble`` adds what an operator has to see."""

    def __init__(self, nodes: int = 1_000, documents: int = 10_000, trouble: bool = True) -> None:
        super().__init__()
        self.cluster = "production"
        self.trouble = trouble
        self.record = replace(self.record, name="eu-west-app-001", agent_version="0.1.0")
        self.cannot_tell = False
        self.odd_digests: dict[str, int] = {}
        self._digest = 0
        chance = random.Random(1)
        for number in range(documents):
            service = _SERVICES[number % len(_SERVICES)]
            site = ("eu-west", "eu-north", "us-east", "ap-south")[number // 2_500 % 4]
            key = f"site/{site}/{service}/host-{number:05d}/config.yml"
            self.put(key, _START + number * 60_000, b"x" * chance.randrange(20, 9_000))
        for key in (*UNSEEN_KEYS, "app/limits", "release"):
            self.put(key, _START, b"rps: 100\n")
        for number in range(2, nodes + 1):
            self.others.append(self._member(number, chance))

    def put(self, key: str, stamp: int, value: bytes) -> Document:
        """A document as it lies there."""
        kind = "yaml" if key.endswith(".yml") else "raw"
        made = Document(key, Version(stamp << 16, LOCAL), value, kind, "deploy", "release 2026.11", False)
        self._digest = (self._digest + made.state_hash) % 2**64
        self.held[key] = [made]
        return made

    @property
    def digest(self) -> int:
        """Another one after each publish."""
        return self._digest

    def news(self, key: str, value: bytes = b"news") -> None:
        """Publish a document, which the event stream tells of."""
        held = self.document(key)
        self.revision += 1
        made = self.put(key, (held.version.hlc >> 16) + 1_000 if held else _START, value)
        self._note(Change(self.revision, "document", "published", made))

    def _member(self, number: int, chance: random.Random) -> Member:
        site = ("eu-west", "eu-north", "us-east", "ap-south")[number % 4]
        state, problems, version = State.ALIVE, (), "0.1.0"
        if self.trouble:
            odd = {State.DEAD: (17, 433, 434), State.SUSPECT: (700,), State.LEFT: (990,)}
            state = next((kind for kind, numbers in odd.items() if number in numbers), state)
            problems = {21: ("clock",), 300: ("unreached",)}.get(number, ())
            version = "0.0.9" if number in (5, 6, 7) else version
        record = Record(f"{site}-app-{number:03d}", f"rack {number % 40}", version, "XDP (native)")
        address = Address(f"198.18.{number // 250 + 1}.{number % 250 + 1}", 8000)
        return Member(address, state, 5, number, record, chance.random() * 3, 0, problems=problems)

    def members(self, states: Any = None) -> list[Member]:
        """All show the same documents."""
        digest = self.digest
        local = Member(LOCAL, State.ALIVE, 5, 7, self.record, 0.0, digest, True)
        odd = self.odd_digests
        others = (replace(member, digest=odd.get(member.node.name, digest)) for member in self.others)
        everybody = [local, *others]
        return [member for member in everybody if states is None or member.state in states or member.local]

    async def troubled_files(self, timeout: float) -> FleetFiles:
        """What two members tell."""
        if self.cannot_tell:
            raise Fault(503, "busy", "too many questions at this moment")
        files = []
        reasons = {
            3: ("failed", "validate: exit status 1"),
            44: ("drifted", "the content is another; its mode is 0777"),
            91: ("failed", "reload: exit status 3; the former file is back"),
            205: ("pending", "document 'site/eu-west/nginx/upstreams' is missing"),
        }
        for member in self.others if self.trouble else []:
            if member.sequence in reasons:
                state, error = reasons[member.sequence]
                since = published_at(_START + member.sequence * 1_000_000)
                who = {"addr": member.address.ip, "port": member.address.port, "name": member.node.name}
                file = {"template": "nginx", "path": "/etc/nginx/nginx.conf", "state": state, "since": since}
                files.append({**who, **file, "error": error})
        present = len(self.members()) - sum(m.state in (State.DEAD, State.LEFT) for m in self.others)
        return FleetFiles(present, present, present * 2, files, 0, [])

    def status(self) -> dict[str, Any]:
        """That of a member whose disk is full, when there is trouble."""
        error = "/var/lib/xdp-gossip/state.db: database or disk is full" if self.trouble else None
        return {**super().status(), "cluster": self.cluster, "mode": "XDP (native)", "storage_error": error}

    async def convergence(self, *_args: Any, **_more: Any) -> Any:
        """Nobody is asked here."""
        self.answer.results = []
        return self.answer


class Served:
    """The API and the page of a fleet, in a thread. Use it as a context manager."""

    def __init__(self, fleet: LargeFleet, port: int = 0) -> None:
        self.fleet = fleet
        self.url = ""
        self._port = port
        self._end = contextlib.ExitStack()

    def __enter__(self) -> Served:
        self.loop = self._end.enter_context(in_thread(self._opened))
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def call(self, work: Any, *parameters: Any) -> None:
        """Do something in the API's thread."""
        self.loop.call_soon_threadsafe(work, *parameters)

    async def _opened(self) -> ApiServer:
        server = ApiServer(build_app(self.fleet, token=TOKEN, max_document=1 << 20, ui=True))
        where = await server.open_tcp(Address("127.0.0.1", self._port))
        self.url = f"http://{where}/ui/"
        return server


if __name__ == "__main__":
    with Served(LargeFleet(trouble="fine" not in sys.argv), 18_990 + ("fine" in sys.argv)) as served:
        print(served.url, TOKEN, flush=True)
        threading.Event().wait()
