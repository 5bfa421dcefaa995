# SPDX-License-Identifier: MIT
"""The API over real node lists that gossip on loopback: what one member is told, every member can answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from api_harness import Api, eventually, serving

from tests.support.agents import cluster


async def present(api: Api) -> dict[str, dict[str, Any]]:
    """Name -> NODE of what is alive."""
    nodes = (await api("GET", "/v1/nodes", params="state=alive")).json["nodes"]
    return {node["name"]: node for node in nodes if node["record_known"]}


@pytest.mark.slow
def test_a_fleet_of_three(tmp_path: Path) -> None:
    async def main() -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        async with (
            cluster(3) as lists,
            serving(lists[0], tmp_path / "a") as (first, _),
            serving(lists[2], tmp_path / "b") as (third, _),
        ):

            async def complete() -> bool:
                return len(await present(first)) == 3 and len(await present(third)) == 3

            await eventually(complete)
            # Published on one member, verified through another.
            written = (await first("PUT", "/v1/documents/app/x", params="content_type=json", body=b"{}")).json
            query = f"key=app/x&version={written['version']}&digest={written['digest']}&timeout=10"
            found = (await third("GET", "/v1/convergence", params=query)).json
            assert (found["converged"], found["members"], found["confirmed"]) == (True, 3, 3)
            assert all(result["version"] == written["version"] for result in found["results"])
            whole = (await third("GET", "/v1/convergence", params="timeout=10")).json
            assert whole["converged"]
            assert (await third("GET", "/v1/documents/app/x")).headers["Content-Type"] == "application/json"

            # A version that nobody holds: nobody confirms, and the reason is told.
            wrong = f"key=app/x&version={'f' * 16}@127.0.0.1:1&timeout=0.2"
            found = (await third("GET", "/v1/convergence", params=wrong)).json
            assert (found["converged"], found["confirmed"]) == (False, 0)
            assert all(result["reason"] for result in found["results"])
            assert (await third("GET", "/v1/convergence", params="key=none")).code == "document_not_found"

            # A deletion: asked for as such, or by the tombstone's version. Nobody holds it before it was written.
            await first("PUT", "/v1/documents/gone", body=b"x")
            there = (await third("GET", "/v1/convergence", params="key=gone&deleted=1&timeout=0.2")).json
            assert (there["converged"], there["confirmed"]) == (False, 0)
            tombstone = (await first("DELETE", "/v1/documents/gone")).json["version"]
            for question in ("deleted=1", f"deleted=1&version={tombstone}", f"version={tombstone}"):
                found = (await third("GET", "/v1/convergence", params=f"key=gone&{question}&timeout=10")).json
                assert (found["converged"], found["confirmed"]) == (True, 3), question
                assert all(result["deleted"] and result["version"] == tombstone for result in found["results"])
            # Never there is as good as gone, but nobody knows of a deletion that was not made.
            assert (await third("GET", "/v1/convergence", params="key=none&deleted=1")).json["converged"]
            unknown = f"key=none&deleted=1&version={tombstone}&timeout=0.2"
            found = (await third("GET", "/v1/convergence", params=unknown)).json
            assert found["confirmed"] == 0
            assert all(result["reason"] == "has not heard of the deletion" for result in found["results"])

            # Compare-and-set on another member than the one that published.
            ok = await third("PUT", "/v1/documents/app/x", body=b"2", headers={"If-Match": f'"{written["version"]}"'})
            assert ok.json["previous_version"] == written["version"]
            stale = await third(
                "PUT", "/v1/documents/app/x", body=b"3", headers={"If-Match": f'"{written["version"]}"'}
            )
            assert stale.status == 412
            assert stale.json["error"]["actual"] == ok.json["version"]
            history = (await third("GET", "/v1/history/app/x")).json["versions"]
            assert [entry["version"] for entry in history] == [ok.json["version"], written["version"]]

            # A change of the record arrives, as one entry.
            since = (await third("GET", "/v1/nodes")).json["revision"]
            await first("PATCH", "/v1/node", json_body={"private_data": "rack 2"})

            async def moved() -> bool:
                return (await present(third))["n1"]["private_data"] == "rack 2"

            await eventually(moved)
            assert len((await third("GET", "/v1/nodes", params="state=all")).json["nodes"]) == 3
            changes = (await third("GET", "/v1/watch", params=f"since={since}&timeout=5")).json
            assert not changes["gap"]
            assert ("node", "updated") in {(change["kind"], change["event"]) for change in changes["changes"]}

            # Deleted here, gone there.
            await first("DELETE", "/v1/documents/app/x")

            async def gone() -> bool:
                return (await third("GET", "/v1/documents/app/x")).status == 404

            await eventually(gone)

            # Leaving is told at once, and coming back too.
            assert (await first("POST", "/v1/node/leave")).json == {"state": "left", "changed": True}
            assert (await first("GET", "/v1/health")).status == 503

            async def left() -> bool:
                return set(await present(third)) == {"n2", "n3"}

            await eventually(left)
            for path in ("/v1/status", "/v1/metrics", "/v1/keys", "/list", "/metadata"):
                assert (await third("GET", path)).status == 200

    asyncio.run(main())


def test_limits_of_the_node_list_show_as_errors(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path, max_document=32 << 20) as (api, _server):
            # The API would let it in; the node list's own limit is 16 MiB.
            answer = await api("PUT", "/v1/documents/big", body=b"x" * ((16 << 20) + 1))
            assert (answer.status, answer.code) == (413, "document_too_large")
            answer = await api("PUT", "/v1/documents/big", body=b"x" * (16 << 20))
            assert answer.json["size"] == 16 << 20
            assert len((await api("GET", "/v1/documents/big")).body) == 16 << 20

    asyncio.run(main())
