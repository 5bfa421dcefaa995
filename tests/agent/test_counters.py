# SPDX-License-Identifier: MIT
"""Counters are there from the start: whoever watches one sees its first event."""

from __future__ import annotations

import ast
import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_harness import serving

import xdp_gossip
from tests.support.agents import cluster
from xdp_gossip.core.counters import NATIVE, PEKONODE, REJECTED, UNDECLARED, Counters
from xdp_gossip.core.types import Address

PACKAGE = Path(xdp_gossip.__file__).parent
CORE = PACKAGE / "core"


def calls(paths: Iterator[Path] | list[Path], name: str) -> Iterator[ast.expr]:
    """The first parameter of every call of something that is called so."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called == name:
                    yield node.args[0]


def patterns(paths: list[Path]) -> set[str]:
    """What is counted, as regular expressions."""
    found = set()
    for argument in calls(paths, "count"):
        for each in (argument.body, argument.orelse) if isinstance(argument, ast.IfExp) else (argument,):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                found.add(each.value)
            elif isinstance(each, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "[a-z_]+" for part in each.values]
                found.add("".join(parts))
    return found


@pytest.mark.parametrize(
    ("declared", "where"),
    [
        (NATIVE, sorted(CORE.rglob("*.py"))),
        (PEKONODE, sorted(set((PACKAGE / "pekonode").glob("*.py")) - {PACKAGE / "pekonode" / "transport.py"})),
    ],
)
def test_what_is_counted_is_declared_and_the_other_way_round(declared: tuple[str, ...], where: list[Path]) -> None:
    assert len(declared) == len(set(declared))
    counted = patterns(where)
    assert len(counted) > 15
    for pattern in counted:
        assert any(re.fullmatch(pattern, name) for name in declared), f"{pattern}: not in core/counters.py"
    for name in declared:
        assert any(re.fullmatch(pattern, name) for pattern in counted), f"{name}: nobody counts it"


def test_every_reason_for_not_using_a_packet_is_declared() -> None:
    paths = [*CORE.rglob("*.py"), *(PACKAGE / "wire").glob("*.py")]
    reasons = {each.value for each in calls(paths, "Rejected") if isinstance(each, ast.Constant)}
    assert reasons == set(REJECTED)


def test_a_name_that_is_not_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters(("a",))
    with pytest.raises(KeyError, match="expected one that is declared"):
        counters.add("b")
    monkeypatch.setattr(Counters, "strict", False)
    counters.add("b", 2)
    counters.add("a")
    assert counters == {"a": 1, "b": 2, UNDECLARED: 1}


def test_a_fresh_agent_has_every_counter_that_a_used_one_has(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(2) as made, serving(made[0], tmp_path) as (api, _):
            before = (await api("GET", "/v1/status")).json["counters"]
            assert set(NATIVE) <= set(before)
            metrics = (await api("GET", "/v1/metrics")).body.decode()
            assert 'xdp_gossip_events_total{name="documents_refused_store_full"} 0.0' in metrics
            runtime, source = made[0]._runtime, Address("127.0.0.1", 9)
            assert runtime is not None
            rng = random.Random(1)
            for _ in range(300):
                runtime._receive(rng.randbytes(rng.randrange(200)), source)
            await made[0].publish(b"v", "k", expires_in=0.05)
            await made[1].publish(b"w", "k2")
            await made[1].delete("k2")
            assert (await api("GET", "/v1/nothing")).status == 404
            made[1].stop()
            made[1].start()
            await made[1].leave()
            await asyncio.sleep(0.2)
            after = (await api("GET", "/v1/status")).json["counters"]
            assert set(after) == set(before) and after != before
            assert after["rx_malformed"] + after["rx_truncated"] > 100

    asyncio.run(main())
