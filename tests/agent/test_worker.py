# SPDX-License-Identifier: MIT
"""What others wrote is checked, parsed and compared in processes that are bounded, and nothing waits for them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from api_harness import serving

from tests.support.agents import agent, cluster
from tests.support.patience import patient
from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.worker import contents, process
from xdp_gossip.worker.contents import Contents
from xdp_gossip.worker.process import BoundedProcess, Broken, TooMuch

MIB = 1024 * 1024
#: Takes seconds to be read, on any machine.
LONG_YAML = b"".join(b"key%d: value %d\n" % (number, number) for number in range(600_000))


def differing() -> list[Any]:
    """A job of many seconds: lines that are in both texts, in another order."""
    dice = random.Random(1)
    texts = ["".join(f"{dice.randrange(300)}\n" for _ in range(60_000)) for _ in range(2)]
    return ["differences", [[texts[0].encode(), texts[1].encode(), "old", "new"]]]


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def pid_of(worker: BoundedProcess) -> int:
    assert worker._process is not None
    return worker._process.pid


async def until(condition: Any) -> None:
    async def look() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await asyncio.wait_for(look(), patient(60))


@pytest.mark.slow
def test_small_contents_do_not_wait_for_large_ones() -> None:
    async def main() -> None:
        checks = Contents()
        try:
            large = asyncio.ensure_future(checks.check("large", LONG_YAML, "yaml"))
            await until(lambda: checks._large._process is not None)
            await checks.check("small", b"a: 1\n", "yaml")
            await checks.check("small", b"[" + b"1," * 20_000 + b"1]", "json")
            await checks.check("small", b"text" * MIB, "text")
            assert not large.done()
            await large  # a long one is no bad one
        finally:
            await checks.close()

    asyncio.run(main())


@pytest.mark.slow
def test_what_takes_too_much_is_refused_and_the_next_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        checks = Contents()
        try:
            await checks.check("k", b"a: 1\n", "yaml")
            monkeypatch.setattr(contents, "MEMORY", 60 * MIB)
            hungry = b"[" + b"[]," * 2_000_000 + b"1]"
            with pytest.raises(ProtocolError, match="valid json, it takes more than 60 MiB of memory") as caught:
                await checks.check("k", hungry, "json")
            assert caught.value.code == "invalid_content"
            with pytest.raises(ValueError, match="memory"):
                await checks.parse_json(hungry, 10)
            monkeypatch.setattr(contents, "MEMORY", 768 * MIB)
            monkeypatch.setattr(contents, "SECONDS", 0.2)
            monkeypatch.setattr(contents, "SECONDS_FOR_MIB", 0.0)
            with pytest.raises(ProtocolError, match=r"it takes more than 0\.2 seconds"):
                await checks.check("k", LONG_YAML, "yaml")
            monkeypatch.setattr(contents, "DIFF_SECONDS", 0.2)
            (_, pairs) = differing()
            assert await checks.differences([*map(tuple, pairs), (b"a\n", b"b\n", "x", "y")]) == [None, None]
            monkeypatch.undo()
            assert await checks.differences([(b"a\n", b"b\n", "x", "y"), (b"\0", b"b", "x", "y")]) == [
                "--- x\n+++ y\n@@ -1 +1 @@\n-a\n+b\n",
                None,
            ]
            with pytest.raises(ProtocolError, match="line 10003"):
                await checks.check("k", b"a: 1\nb: [\n" + b"c\n" * 10_000, "yaml")
        finally:
            await checks.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_caller_that_leaves_takes_its_work_along() -> None:
    async def main() -> None:
        worker = BoundedProcess()
        slow = asyncio.ensure_future(worker.run(differing(), 1000, 1000 * MIB))
        await until(lambda: worker._process is not None)
        await asyncio.sleep(0.2)
        pid = pid_of(worker)
        slow.cancel()
        await asyncio.wait([slow])
        assert slow.cancelled()
        assert not alive(pid)
        assert await worker.run(["parse", b"1", 1], 5, 500 * MIB) == ["done", 1]
        await worker.close()
        assert worker._process is None

    asyncio.run(main())


def test_a_process_that_ends_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        worker = BoundedProcess()
        slow = asyncio.ensure_future(worker.run(differing(), 1000, 1000 * MIB))
        await until(lambda: worker._process is not None)
        os.kill(pid_of(worker), signal.SIGKILL)
        with pytest.raises(Broken):
            await slow
        assert await worker.run(["parse", b"[1]", 5], 5, 500 * MIB) == ["done", [1]]
        # One that has kept much memory is not kept.
        monkeypatch.setattr(process, "_KEPT_MEMORY", 1)
        await worker.run(["parse", b"1", 1], 5, 500 * MIB)
        assert worker._process is None
        monkeypatch.undo()
        # Nor is one that nobody needs.
        monkeypatch.setattr(process, "_IDLE_SECONDS", 0.05)
        await worker.run(["parse", b"1", 1], 5, 500 * MIB)
        await until(lambda: worker._process is None)
        monkeypatch.setattr(process.sys, "executable", "/nowhere/python")
        with pytest.raises(Broken):
            await worker.run(["parse", b"1", 1], 5, 500 * MIB)

    asyncio.run(main())


def test_one_at_a_time_and_each_gets_its_own_answer() -> None:
    async def main() -> None:
        worker = BoundedProcess()
        jobs = [["parse", b"%d" % number, 1] for number in range(50)]
        answers = await asyncio.gather(*(worker.run(job, 5, 500 * MIB) for job in jobs))
        assert answers == [["done", number] for number in range(50)]
        with pytest.raises(TooMuch, match="more than 0 MiB of memory"):
            await worker.run(differing(), 1000, 1)
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_the_node_list_goes_on_while_a_content_is_checked() -> None:
    async def main() -> None:
        async with cluster(2) as lists:
            publishing = asyncio.ensure_future(lists[0].publish(LONG_YAML, "large", content_type="yaml"))
            revision = lists[1].revision
            for number in range(5):
                await lists[0].publish(b"%d" % number, "small")
                while lists[1].read("small") != b"%d" % number:
                    revision = (await lists[1].changes(revision, 30)).revision
            assert not publishing.done()
            await publishing
            assert {member.state.value for member in lists[1].members()} == {"alive"}

    asyncio.run(main())


@pytest.mark.slow
def test_a_batch_is_parsed_without_anybody_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path, max_document=16 << 20) as (api, _server):
            values = {"a": b"x" * 3 * MIB, "b": bytes(range(256)) * 4096}
            documents: list[dict[str, Any]] = [{"key": "a", "value": values["a"].decode()}]
            documents.append({"key": "b", "value_base64": base64.b64encode(values["b"]).decode(), "expires_in": 1000})
            answer = await api("POST", "/v1/documents", json_body={"documents": documents, "comment": "two"})
            assert answer.status == 200
            assert {key: lists[0].read(key) for key in values} == values
            for body, reason in (
                (b'{"documents": [' + b"[]," * 3_000_000 + b"1]}", "values"),
                (b'{"documents": [{"key": "a", "value": "' + b"x" * MIB + b'", "key": "b"}]}', "twice"),
                (b"[" * MIB, "nested too deeply"),
                (b'{"documents": "' + b"\xff" * MIB + b'"}', "utf-8"),
                (b'{"documents": NaN, "x": "' + b"x" * MIB + b'"}', "NaN"),
            ):
                refused = await api("POST", "/v1/documents", body=body)
                assert (refused.status, refused.code) == (400, "invalid_json"), refused.body[:200]
                assert reason in refused.json["error"]["message"]

    asyncio.run(main())


@pytest.mark.slow
def test_an_agent_ends_while_it_compares_and_checks(tmp_path: Path) -> None:
    """SIGTERM waited for a comparison that nobody wanted any more."""
    with agent(tmp_path / "a") as running:
        for text in differing()[1][0][:2]:
            assert running.command("publish", "k", "-", stdin=text).returncode == 0
        with socket.socket(socket.AF_UNIX) as comparing, socket.socket(socket.AF_UNIX) as checking:
            comparing.connect(str(running.socket))
            comparing.sendall(b"GET /v1/history/k?diff=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            checking.connect(str(running.socket))
            length = len(LONG_YAML)
            head = f"PUT /v1/documents/large?content_type=yaml HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            checking.sendall(head.encode() + LONG_YAML)
            # Both are at work: the agent has children.
            children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
            while len(found := children.read_text().split()) < 1:
                pass
            assert json.loads(running.command("--json", "status").stdout)["state"] == "running"
            assert running.stop() == 0
            assert not [pid for pid in found if alive(int(pid))]
