# SPDX-License-Identifier: MIT
"""A signed rollback signs only what the own key has signed before, whatever the member says about the version."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from api_harness import serving

from tests.support.agents import SECRET
from tests.support.ports import free_port
from tests.support.signer import Draft, Key, writes
from xdp_gossip import AsyncNodeList, Node, make_signer
from xdp_gossip.cli.common import CommandError
from xdp_gossip.cli.signed import check_former

ALICE, BOB, EVE = Key(1), Key(2), Key(3)
SIGNERS = [make_signer("alice", ALICE.line, ["app/"], None), make_signer("bob", BOB.line, ["app/"], None)]


@asynccontextmanager
async def member(state: Path) -> AsyncIterator[AsyncNodeList]:
    async with AsyncNodeList(secret_key=SECRET, signers=SIGNERS, cycle=0.2, state_dir=state) as node_list:
        node_list.new(Node("127.0.0.1", free_port(), "n1"))
        await node_list.join()
        yield node_list


def check(place: Path, former: dict[str, Any], value: bytes, cluster: str = "default", version: str = "") -> None:
    (place / "key.pub").write_text(ALICE.line)
    named = {"key": "app/a", "to": version or former["version"], "cluster": cluster}
    check_former(argparse.Namespace(sign_key=str(place / "key.pub"), **named), former, value)


def test_what_a_member_claims_gets_no_signature(tmp_path: Path) -> None:
    async def main() -> None:
        now = time.time_ns() // 1000 - 60_000_000
        expires = now // 1000 + 3_600_000
        async with member(tmp_path / "state") as node_list, serving(node_list, tmp_path) as (api, _):

            async def publish(key: Key, at: int, *drafts: Draft) -> dict[str, Any]:
                await node_list.publish_many(writes(key, now + at, *drafts, comment="x\npublish"), comment="x\npublish")
                found: dict[str, Any] = (await api("GET", "/v1/documents/app/a", params="format=json")).json
                return found

            first = await publish(ALICE, 1, Draft("app/a", b"first"))
            read = next(iter(await node_list.history("app/a"))).version
            batch = await publish(
                ALICE, 2000, Draft("app/a", b"second", (read,), expires=expires), Draft("app/b", b"other")
            )
            bobs = await publish(BOB, 4000, Draft("app/a", b"third"))

        check(tmp_path, first, b"first")
        check(tmp_path, batch, b"second")
        for former, value, told in (
            (first, b"evil", "the key has signed another content"),
            (batch, b"evil", "the key has signed another content"),
            ({**first, "content_type": "yaml"}, b"first", "the key has signed another content"),
            ({**first, "signature": None}, b"first", "nobody has signed it"),
            ({**first, "signature": bobs["signature"]}, b"first", "another key has signed it"),
            (bobs, b"third", "another key has signed it"),
            ({**first, "signature": {"statement": "x", "armored": "y"}}, b"first", "its signature is wrong"),
            ({**first, "signature": {**first["signature"], "statement": "x"}}, b"first", "its signature is wrong"),
        ):
            with pytest.raises(CommandError, match=told):
                check(tmp_path, former, value)
        with pytest.raises(CommandError, match="signed another version"):
            check(tmp_path, first, b"first", version=batch["version"])
        with pytest.raises(CommandError, match="one of another cluster"):
            check(tmp_path, first, b"first", cluster="production")

    asyncio.run(main())
