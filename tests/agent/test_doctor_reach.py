# SPDX-License-Identifier: MIT
"""What ``doctor`` says of identity, reach and room, from the status and the nodes of an agent."""

from __future__ import annotations

from typing import Any

from xdp_gossip.cli.doctor import documents, problems, running, told_address
from xdp_gossip.core.types import PROBLEMS

NODE = {"addr": "198.18.0.5", "port": 8000, "name": "host5", "local": True}


def status(counters: dict[str, int], **node: Any) -> dict[str, Any]:
    return {"wire": "native", "node": {**NODE, **node}, "listen": "0.0.0.0:8000", "counters": counters}


def test_nothing_ever_arrives_at_the_told_address() -> None:
    (found,) = told_address(status({"tx_swap_request": 9}))
    assert found.level == "fail"
    assert "tells others 198.18.0.5:8000, listens on 0.0.0.0:8000; 9 requests" in found.text
    assert "nothing ever arrived" in found.text
    for counters in ({"tx_swap_request": 9, "rx_probe": 1}, {"tx_swap_request": 2}, {}):
        (found,) = told_address(status(counters))
        assert found.level == "ok", counters


def test_a_told_address_that_the_host_does_not_have() -> None:
    (found,) = told_address(status({"source_unavailable": 3, "rx_heartbeat": 1}))
    assert (found.level, found.remedy) == ("warn", "behind NAT that is right")


def test_each_problem_of_this_node_and_of_others_is_told() -> None:
    other = {**NODE, "addr": "198.18.0.6", "name": "host6", "local": False}
    for problem in PROBLEMS:
        mine = list(problems(status({}, problems=[problem]), [{**NODE, "problems": [problem]}]))
        assert [finding.text.startswith("this node: ") for finding in mine] == [True], problem
        theirs = list(problems(status({}), [NODE, {**other, "problems": [problem]}]))
        assert [finding.level for finding in theirs] == ["warn"], problem
        assert "host6 (198.18.0.6:8000): " in theirs[0].text
        assert theirs[0].remedy
    assert not list(problems(status({}), [NODE, other]))


def test_a_node_that_has_not_caught_up_says_what_it_waits_for() -> None:
    def found(waits: str) -> list[str]:
        members = {"alive": 2, "suspect": 0, "dead": 0, "left": 0}
        room = {"documents": 0, "document_bytes": 0, "document_bytes_limit": 1000}
        told = {**status({}), **room, "version": "1", "state": "running", "clock_offset": 0.0, "catching_up": waits}
        findings = running({**told, "members": members}, None)
        return [finding.text for finding in findings if finding.level == "warn"]

    assert found("") == []
    assert found("no member has answered yet") == [
        "it has not caught up with the cluster since it started: no member has answered yet"
    ]


def test_room_for_documents_and_what_a_limit_kept_out() -> None:
    def found(held: int, counters: dict[str, int]) -> list[tuple[str, str]]:
        full = {**status(counters), "documents": 3, "document_bytes": held, "document_bytes_limit": 1000}
        return [(finding.level, finding.text) for finding in documents(full)]

    assert found(799, {}) == [("ok", "3 with 799 of at most 1000 bytes (limits.store)")]
    assert found(800, {})[0][0] == "warn"
    for reason, limit in (("too_large", "document"), ("too_many", "documents"), ("store_full", "store")):
        told = f"others' documents were refused 2 times, because of limits.{limit} here"
        assert found(1, {f"documents_refused_{reason}": 2})[1] == ("fail", told)
