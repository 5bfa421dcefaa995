# SPDX-License-Identifier: MIT
"""When a template is rendered, and when it is not; what waits for what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from xdp_gossip.api import metrics
from xdp_gossip.config.templates import TemplateConfig
from xdp_gossip.core.types import Address, Document, Member, Record, State, Version
from xdp_gossip.node.changes import ChangeLog, Changes
from xdp_gossip.templates import loop as rendering_loop
from xdp_gossip.templates.helper.server import MAX_CONNECTIONS
from xdp_gossip.templates.lanes import Lanes
from xdp_gossip.templates.loop import HANDED_OVER, Rendered, Rendering
from xdp_gossip.templates.renderer import Rendering as Made

HERE = Address.of("198.18.0.1", 8000)
THERE = Address.of("198.18.0.2", 8000)


class World:
    """A node list, and a helper that notes what it is given."""

    def __init__(self) -> None:
        self.held: dict[str, Document] = {}
        self.nodes = [Member(HERE, State.ALIVE, 1, 1, Record("a", ""), 0.0, 0, local=True)]
        self.log = ChangeLog(1)
        self.catching_up = ""
        self.isolated = False
        self.number = 1
        #: (template, content) in the order in which they were in place; those at the helper now; the most at one time.
        self.placed: list[tuple[str, bytes]] = []
        self.at_helper: list[str] = []
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()
        #: Called for each document that a worker asks for.
        self.on_read: Callable[[str], None] = lambda key: None

    def document(self, key: str) -> Document | None:
        found = self.held.get(key)
        self.on_read(key)
        return found

    def documents(self, prefix: str = "") -> list[Document]:
        return [self.held[key] for key in sorted(self.held) if key.startswith(prefix)]

    def members(self) -> list[Member]:
        return list(self.nodes)

    def local(self) -> Member:
        return self.nodes[0]

    @property
    def revision(self) -> int:
        return self.log.revision

    async def changes(self, since: int, timeout: float) -> Changes:
        return await self.log.wait(since, timeout)

    def put(self, **values: bytes) -> None:
        """All at once, as a batch."""
        self.number += 1
        for key, value in values.items():
            self.held[key.replace("__", "/")] = Document(
                key.replace("__", "/"), Version(self.number << 16, HERE), value
            )
        for key in values:
            self.log.add("document", "published", document=self.held[key.replace("__", "/")])

    def hear(self, member: Member) -> None:
        self.nodes = [node for node in self.nodes if node.address != member.address] + [member]
        self.log.add("node", "updated", member=member)

    async def hand_over(
        self, socket: str, template: TemplateConfig, content: bytes, *, repair: bool = False
    ) -> dict[str, Any]:
        self.at_helper.append(template.name)
        self.most = max(self.most, len(self.at_helper))
        try:
            await self.open.wait()
            self.placed.append((template.name, content))
            return {"state": "applied", "changed": True}
        finally:
            self.at_helper.remove(template.name)


async def until(true: Callable[[], object]) -> None:
    async def look() -> None:
        while not true():  # noqa: ASYNC110 - not each of these states has an event
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), 20 * PATIENCE)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a story with templates by name; it is given the world and the rendering."""

    def run(story: Callable[[World, Rendering], Awaitable[None]], reload: str = "", **sources: str) -> None:
        async def main() -> None:
            world = World()
            monkeypatch.setattr(rendering_loop, "hand_over", world.hand_over)
            configs = []
            for name, text in sources.items():
                (tmp_path / name).write_text(text)
                command = (reload,) if reload else ()
                configs.append(TemplateConfig(name, str(tmp_path / name), f"/x/{name}", reload=command, wait=0.05))
            rendering = Rendering(world, configs, "/none")  # type: ignore[arg-type]
            try:
                await story(world, rendering)
            finally:
                await rendering.close()

        asyncio.run(main())

    return run


def one(rendering: Rendering) -> Rendered:
    return rendering._rendered[0]


async def idle(rendering: Rendering) -> None:
    """Everything that is due is done."""
    await until(lambda: not any(each.working or each.due.is_set() for each in rendering._rendered))


@pytest.mark.slow
def test_nothing_is_rendered_before_this_node_has_caught_up(play: Callable[..., None]) -> None:
    async def story(world: World, rendering: Rendering) -> None:
        world.catching_up = "3 documents of 198.18.0.2:8000 are on their way"
        rendering.start()
        await until(lambda: "has not caught up" in one(rendering).error)
        rendering.again()  # a reload of the configuration does not change that
        await asyncio.sleep(0.3)
        entry = rendering.outcomes()[0]
        assert (entry["state"], entry["renderings"], world.placed) == ("pending", 0, [])
        assert entry["error"] == f"this node has not caught up with the cluster: {world.catching_up}"
        assert rendering.applied("up/1").state == "pending"
        world.put(up__1=b"good")
        world.catching_up = ""
        await until(lambda: world.placed)
        assert world.placed == [("upstream", b"good;")]

    play(story, upstream="{% for d in documents('up/') %}{{ d.value }};{% endfor %}")


@pytest.mark.slow
def test_an_isolated_node_keeps_its_files_and_renders_nothing_new(play: Callable[..., None]) -> None:
    async def story(world: World, rendering: Rendering) -> None:
        world.put(up__1=b"good")
        rendering.start()
        await until(lambda: world.placed)
        await idle(rendering)
        world.isolated = True
        world.put(up__1=b"new")
        rendering.again()  # a reload of the configuration does not change that
        await until(lambda: one(rendering).held)
        applied = rendering.applied("up/1")
        assert (applied.state, "this node is isolated" in applied.error) == ("pending", True)
        entry = rendering.outcomes()[0]
        assert (entry["state"], entry["renderings"], world.placed) == ("applied", 1, [("upstream", b"good;")])
        world.isolated = False
        await until(lambda: len(world.placed) == 2)
        assert world.placed[1] == ("upstream", b"new;")
        await idle(rendering)
        assert (one(rendering).held, rendering.applied("up/1").state) == ("", "applied")

    play(story, upstream="{% for d in documents('up/') %}{{ d.value }};{% endfor %}")


@pytest.mark.slow
def test_a_template_is_rendered_again_only_for_what_it_read(play: Callable[..., None]) -> None:
    async def story(world: World, rendering: Rendering) -> None:
        def counts() -> dict[str, int]:
            return {entry["name"]: entry["renderings"] for entry in rendering.outcomes()}

        assert counts() == dict.fromkeys(("doc", "prefix", "nodes", "broken", "lacks"), 0)
        body = metrics.render(_STATUS, [], rendering.outcomes())[0].decode()
        assert 'xdp_gossip_template_renderings_total{template="doc"} 0.0' in body
        world.put(a=b"1", up__1=b"1")
        rendering.start()
        await until(lambda: all(counts().values()))
        await idle(rendering)
        expected = dict.fromkeys(counts(), 1)
        assert counts() == expected

        async def changes(*names: str) -> None:
            expected.update({name: expected[name] + 1 for name in names})
            await until(lambda: counts() == expected)
            await asyncio.sleep(0.2)  # what is not to be rendered would have been by now
            await idle(rendering)
            assert counts() == expected

        world.put(other=b"x")  # what nobody reads; nor does a template that is broken, or waits for another one
        await changes()
        world.put(a=b"2")
        await changes("doc")
        world.put(up__2=b"2")
        await changes("prefix")
        world.hear(Member(THERE, State.ALIVE, 1, 1, Record("b", ""), 0.0, 0))
        await changes("nodes")
        # The same node, heard again, restarted, with another plane: nothing that templates see.
        world.hear(Member(THERE, State.ALIVE, 2, 99, Record("b", "", "9.9", "XDP"), 3.0, 7))
        await changes()
        world.hear(Member(THERE, State.SUSPECT, 2, 99, Record("b", ""), 9.0, 7))
        await changes("nodes")
        world.put(missing=b"x")
        await changes("lacks")
        rendering.again()
        await changes(*expected)

    play(
        story,
        doc="{{ document('a') }}",
        prefix="{{ documents('up/') | length }}",
        nodes="{{ nodes | map(attribute='state') | join }}",
        broken="{{ nothing }}",
        lacks="{{ document('missing') }}",
    )


_STATUS: dict[str, Any] = {
    **dict.fromkeys(("documents", "document_bytes", "document_bytes_limit", "uptime", "cycle", "timeout"), 0),
    **dict.fromkeys(("version", "cluster", "wire", "protocol", "mode", "state", "digest"), ""),
    "members": {},
    "counters": {},
    "node": {"incarnation": 1},
    "clock_offset": 0.0,
    "isolated": False,
    "caught_up": True,
}


def test_a_batch_is_shown_all_or_not_at_all(play: Callable[..., None]) -> None:
    async def story(world: World, rendering: Rendering) -> None:
        world.put(a=b"1", b=b"1")

        def between(key: str) -> None:  # the worker has got one of them, and asks for the other
            if key == "a" and world.held["a"].value == b"1":
                world.put(a=b"2", b=b"2")

        world.on_read = between
        rendering.start()
        await until(lambda: world.placed)
        await idle(rendering)
        assert world.placed == [("both", b"2 2")]

    play(story, both="{{ document('a') }} {{ document('b') }}")


def test_what_is_read_twice_is_read_from_one_moment(play: Callable[..., None]) -> None:
    async def story(world: World, rendering: Rendering) -> None:
        world.put(up__a=b"1", up__b=b"1")

        def between(key: str) -> None:
            if key == "up/a" and world.held["up/a"].value == b"1":
                world.put(up__a=b"2", up__b=b"2")

        world.on_read = between
        rendering.start()
        await until(lambda: world.placed)
        await idle(rendering)
        assert world.placed == [("both", b"2 2 2")]

    play(story, both="{{ document('up/a') }} {{ documents('up/') | map(attribute='value') | join(' ') }}")


def test_a_cluster_that_publishes_all_the_time_keeps_no_file_from_being_made(play: Callable[..., None]) -> None:
    async def story(world: World, rendering: Rendering) -> None:
        world.put(a=b"0", b=b"0")

        def always(key: str) -> None:
            if key == "a":
                text = b"%d" % world.number
                world.put(a=text, b=text)

        world.on_read = always
        rendering.start()
        await until(lambda: len(world.placed) >= 2)
        for _name, content in world.placed:  # each of them is from one moment
            first, second = content.split()
            assert first == second

    play(story, both="{{ document('a') }} {{ document('b') }}")


NAMES = [f"t{number:02}" for number in range(20)]


@pytest.mark.parametrize(("reload", "at_once"), [("", HANDED_OVER), ("/bin/true", 1)])
def test_more_templates_than_the_helper_takes_are_queued_and_never_failed(
    play: Callable[..., None], reload: str, at_once: int
) -> None:
    assert HANDED_OVER < MAX_CONNECTIONS

    async def story(world: World, rendering: Rendering) -> None:
        world.open.clear()
        rendering.start()

        def waiting() -> list[dict[str, Any]]:
            return [entry for entry in rendering.outcomes() if entry["error"].startswith("queued")]

        await until(lambda: len(waiting()) == len(NAMES) - at_once)
        assert len(world.at_helper) == at_once
        assert {entry["state"] for entry in rendering.outcomes()} == {"pending"}
        assert {rendering.applied("x").state} == {"none"}  # none of them reads it
        world.open.set()
        await until(lambda: len(world.placed) == len(NAMES))
        await idle(rendering)
        assert world.most == at_once
        assert {entry["state"] for entry in rendering.outcomes()} == {"applied"}

    play(story, reload, **dict.fromkeys(NAMES, "x"))


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.slow
def test_a_slow_template_delays_no_other() -> None:
    async def main() -> None:
        world = World()
        lanes = Lanes(world, seconds=600.0, quick=0.5)  # type: ignore[arg-type]
        slow = asyncio.ensure_future(lanes.render("slow", LOOP))
        try:
            made: Made = await lanes.render("fast", "{{ node.name }}")  # waits for its turn, then has the lane
            assert (made.kind, made.content) == ("done", b"a")
            for _ in range(5):
                assert (await lanes.render("fast", "{{ node.name }}")).content == b"a"
            assert not slow.done()
            assert lanes._slow == {"slow"}
        finally:
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
            await lanes.close()

    asyncio.run(main())


@pytest.mark.slow
def test_what_was_slow_once_and_is_not_any_more_is_quick_again() -> None:
    async def main() -> None:
        lanes = Lanes(World(), seconds=1.0, quick=0.5)  # type: ignore[arg-type]
        try:
            made = await lanes.render("t", LOOP)
            assert made.kind == "exceeded" and "took more than 1 s" in made.error
            assert lanes._slow == {"t"}
            for _ in range(100):  # a busy machine may make it slow a few times
                assert (await lanes.render("t", "x")).kind == "done"
                if not lanes._slow:
                    break
            assert not lanes._slow
        finally:
            await lanes.close()

    asyncio.run(main())
