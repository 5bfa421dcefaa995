# SPDX-License-Identifier: MIT
"""What ``doctor`` makes of what an agent tells: identity, members, versions, clocks, keys, documents, traffic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doctoring import doctor, look, look_at, other, wrong

from tests.support.agents import SECRET, agent, write_config
from tests.support.keys import OTHER_KEY
from tests.support.patience import patient
from tests.support.ports import free_port
from xdp_gossip.cli.doctor import (
    asking,
    clocks,
    disks,
    documents,
    identity,
    keys,
    members,
    process,
    signers,
    traffic,
    versions,
)
from xdp_gossip.cli.doctor.look import Look
from xdp_gossip.config.agent import load
from xdp_gossip.core.counters import NATIVE, PEKONODE
from xdp_gossip.core.types import PROBLEMS
from xdp_gossip.wire.keys import derive

#: Fingerprints, as the API has them.
OLD, NEW = (f"{derive('default', secret).fingerprint:016x}" for secret in (SECRET, OTHER_KEY))


def until(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What ``found`` gives once it gives something."""
    deadline = time.monotonic() + patient(seconds)
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


# -- made to happen, with agents on loopback ---------------------------------------------------------------------


@pytest.mark.slow
def test_keys_that_differ(tmp_path: Path) -> None:
    """A rotation that has gone its way at one member only; and a third member that knows nothing of it."""
    for name, text in (("old", SECRET), ("new", OTHER_KEY)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    port = free_port()
    seeds = [f"127.0.0.1:{port}"]
    before = [{"file": old, "state": "active"}, {"file": new, "state": "staged"}]
    after = [{"file": old, "state": "retiring"}, {"file": new, "state": "active"}]
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(agent(tmp_path / "a", port, secret_key_file="", keys=before))
        two = stack.enter_context(agent(tmp_path / "b", secret_key_file="", keys=after, seeds=seeds))
        three = stack.enter_context(agent(tmp_path / "c", seeds=seeds))

        def findings(running: Any, awaited: str, text: str = "") -> Any:
            def look_again() -> Any:
                found = wrong(keys.examine(look_at(running.directory / "agent.yml")))
                return found if awaited in found and text in found[awaited].text else None

            return until(look_again)

        # A member has no name yet when only its address is known.
        found = findings(one, "key.others", "b (")
        assert f"key {OLD} signs here, b (" in found["key.others"].text
        assert f"sign with key {NEW} (staged here)" in found["key.others"].text
        assert f"key {NEW} is staged" in found["key.rotation"].text
        found = findings(two, "key.others", "a (")
        assert "still sign with it" in found["key.rotation"].text
        assert findings(three, "key.unknown")["key.unknown"].level == "warning"


@pytest.mark.slow
def test_members_that_do_not_hear_each_other(tmp_path: Path) -> None:
    """Another secret, another cluster, nobody at a seed's address, and nobody to name."""
    port = free_port()
    seeds = [f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}", "no-such-host.invalid:8000"]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(agent(tmp_path / "a", port))
        assert "members.alone" in wrong(members.examine(look_at(first.directory / "agent.yml")))
        (tmp_path / "wrong").write_text(OTHER_KEY)
        (tmp_path / "wrong").chmod(0o600)
        wrong_key = str(tmp_path / "wrong")
        stranger = stack.enter_context(agent(tmp_path / "b", seeds=seeds, secret_key_file=wrong_key))
        stack.enter_context(agent(tmp_path / "c", seeds=seeds, cluster="another"))
        friend = stack.enter_context(agent(tmp_path / "d", seeds=seeds))

        def seen(subject: Any, running: Any, finding: str) -> Any:
            return until(lambda: wrong(subject.examine(look_at(running.directory / "agent.yml"))).get(finding))

        assert "that this node does not have" in seen(keys, first, "key.unknown").text
        assert "rx_foreign_cluster" in seen(traffic, first, "traffic.cluster").text
        assert "both ways" in seen(members, stranger, "members.nobody").remedy
        assert "nothing ever arrived" in seen(identity, stranger, "identity.unheard").text
        assert "of 2 seeds 1 are not among the members" in seen(members, friend, "members.seeds").text
        assert "no-such-host.invalid (" in seen(members, friend, "members.seed_names").text
        assert seen(traffic, friend, "traffic.seed_lookups").level == "note"


@pytest.mark.slow
def test_twins_and_namesakes(tmp_path: Path) -> None:
    """Two nodes of one name; and two agents with one address, of which one hears the other's packets."""
    port = free_port()
    with agent(tmp_path / "a", port) as first:
        node = {"addr": "127.0.0.1", "port": free_port(), "name": "a"}
        with agent(tmp_path / "b", node=node, seeds=[f"127.0.0.1:{port}"]):
            until(lambda: wrong(identity.examine(look_at(first.directory / "agent.yml"))).get("identity.same_name"))
            found = wrong(members.examine(look_at(first.directory / "agent.yml")))
            assert "a (127.0.0.1:" in found["members.same_name"].text


@pytest.mark.slow
def test_a_healthy_fleet_has_no_findings(tmp_path: Path) -> None:
    """What this machine is like besides (its clock's source) is not the agents'."""
    port = free_port()
    with agent(tmp_path / "a", port, protocol="UDP") as first:
        with agent(tmp_path / "b", protocol="UDP", seeds=[f"127.0.0.1:{port}"]) as second:
            for running in (first, second):
                until(lambda running=running: sum(n["record_known"] for n in running.json("members")["nodes"]) == 2)
                until(lambda running=running: running.json("status")["caught_up"])
            for running in (first, second):
                status, found = doctor(running.directory / "agent.yml")
                host = {"clock.unsynchronised", "unit.failed", "disk.low"}
                assert not {i: f for i, f in found.items() if not i.endswith(".ok")}.keys() - host, found
                assert status == 0
                assert {"agent.ok", "members.ok", "config.ok", "disk.ok", "traffic.ok", "process.ok"} <= found.keys()


# -- by what the status says -------------------------------------------------------------------------------------


def test_nothing_ever_arrives_at_the_told_address() -> None:
    found = wrong(identity.examine(look({"tx_swap_request": 9})))["identity.unheard"]
    assert found.level == "error"
    assert "tells others 198.18.0.5:8000, listens on 0.0.0.0:8000; 9 requests" in found.text
    for counters in ({"tx_swap_request": 9, "rx_probe": 1}, {"tx_swap_request": 2}, {}):
        assert not wrong(identity.examine(look(counters))), counters


def test_a_told_address_that_the_host_does_not_have() -> None:
    found = wrong(identity.examine(look({"source_unavailable": 3, "rx_heartbeat": 1})))["identity.foreign"]
    assert (found.level, found.remedy) == ("warning", "behind NAT that is right")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_problem_of_this_node_and_of_others_is_told(problem: str) -> None:
    mine = wrong(identity.examine(look(node={"problems": [problem]})))
    assert list(mine) == [f"identity.{problem}"] and mine[f"identity.{problem}"].text.startswith("this node: ")
    theirs = wrong(members.examine(look(nodes=[other(6, problems=[problem])])))
    assert list(theirs) == [f"members.{problem}"]
    assert "host6 (198.18.0.6:8000): " in theirs[f"members.{problem}"].text
    assert not wrong(members.examine(look(nodes=[other(6)])))


def test_members_that_are_suspect_are_named_a_few_of_them() -> None:
    found = wrong(members.examine(look(nodes=[other(number, state="suspect") for number in range(10, 18)])))
    assert found["members.suspect"].text.endswith("host14 (198.18.0.14:8000) and 3 more")


def test_what_the_agent_waits_for_and_whether_it_runs() -> None:
    assert not wrong(asking.examine(look()))
    found = wrong(asking.examine(look({"own_stalls": 2}, state="paused", waiting="address x", catching_up="nobody")))
    assert set(found) == {"agent.stopped", "agent.waiting", "agent.catching_up", "agent.stalls"}
    assert "caught up with the cluster since its start: nobody" in found["agent.catching_up"].text
    errors = [{"task": "packet", "place": "core/x.py:1 in y", "error": "TypeError: z", "count": 3}]
    found = wrong(asking.examine(look(internal_errors=errors)))
    assert found["agent.internal_errors"].level == "error"


def test_releases_that_differ() -> None:
    both = [other(6, version="0.2.0"), other(7, version="0.2.0", state="dead"), other(8, version="")]
    found = wrong(versions.examine(look({"rx_foreign_version": 4}, nodes=both)))
    assert set(found) == {"version.mixed", "version.wire"}
    assert "2 releases: 0.1.0: host5 (198.18.0.5:8000); 0.2.0: host6 (198.18.0.6:8000)" in found["version.mixed"].text
    assert not wrong(versions.examine(look(nodes=[other(6)])))


def test_a_release_that_was_exchanged_under_a_running_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent(tmp_path / "a") as running:
        monkeypatch.setattr(versions, "__version__", "9.9.9")
        found = wrong(versions.examine(look_at(running.directory / "agent.yml")))
    assert "this command is of 9.9.9" in found["version.installed"].text


def test_a_clock_that_is_ahead_behind_or_unsynchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    for synchronised in (True, False):
        monkeypatch.setattr(clocks, "unsynchronised", lambda synchronised=synchronised: not synchronised)
        assert bool(wrong(clocks.examine(look()))) != synchronised
    for offset, word in ((31.0, "ahead of"), (-31.0, "behind")):
        found = wrong(clocks.examine(look(clock_offset=offset)))["clock.offset"]
        assert found.level == "error" and f"31.000 s {word} this host's" in found.text
    counted = {"clock_steps": 1, "rx_stale_time": 2, "documents_ahead": 3}
    assert {"clock.stepped", "clock.stale", "clock.ahead"} <= wrong(clocks.examine(look(counted))).keys()


def test_the_kernel_is_asked_for_its_clock() -> None:
    """Whatever it answers: it is asked by a call that anybody may make, and that changes nothing."""
    assert clocks.unsynchronised() in (True, False)


def test_keys_that_are_not_used_any_more() -> None:
    own = [{"fingerprint": OLD, "state": "retiring"}, {"fingerprint": NEW, "state": "active"}]
    found = wrong(keys.examine(replace(look(nodes=[other(6, keys=own)]), keys=own)))
    assert list(found) == ["key.rotation"] and "no member signs with it" in found["key.rotation"].text


def test_members_that_lack_a_key() -> None:
    """A staged key that one member has not got yet; a member without a record is none that lacks it."""
    own = [{"fingerprint": OLD, "state": "active"}, {"fingerprint": NEW, "state": "staged"}]
    nodes = [other(6, keys=own), other(7, keys=own[:1]), other(8)]
    found = wrong(keys.examine(replace(look(nodes=nodes), keys=own)))
    assert set(found) == {"key.rotation", "key.lacks"}
    assert found["key.lacks"].text == f"key {NEW} (staged here) is missing on host7 (198.18.0.7:8000)"


def test_a_member_that_missed_a_rotation_and_one_with_a_passphrase(tmp_path: Path) -> None:
    found = wrong(keys.examine(look({"rx_unknown_key": 7}, missed_rotation=True)))
    assert list(found) == ["key.missed"] and found["key.missed"].level == "error"
    assert "7 packets came" in found["key.missed"].text
    dropped = {"counters": {"drop_unknown_key": 5}}
    found = wrong(keys.examine(look({"rx_unknown_key": 2}, dataplane=dropped, unknown_key_nodes=1)))
    assert list(found) == ["key.unknown"] and found["key.unknown"].text.startswith("7 packets were signed with a key")
    path = write_config(tmp_path / "a", 8000)
    assert "key.passphrase" not in wrong(keys.examine(Look(str(path), config=load(str(path)))))
    (tmp_path / "a" / "secret.key").write_text("correct horse battery staple")
    found = wrong(keys.examine(Look(str(path), config=load(str(path)))))
    assert found["key.passphrase"].text.startswith("secret_key_file has a passphrase")


def test_packets_with_the_id_of_a_key_and_another_secret() -> None:
    found = wrong(keys.examine(look({"rx_bad_mac": 2, "rx_bad_body": 1})))
    assert list(found) == ["key.wrong"] and found["key.wrong"].text.startswith("3 packets")


def test_signers_that_differ() -> None:
    assert not wrong(signers.examine(look(nodes=[other(6)])))
    found = wrong(signers.examine(look(nodes=[other(6, signers="0123456789abcdef"), other(7)])))["signer.differ"]
    assert found.level == "warning" and "accept other signers than this node" in found.text
    found = wrong(signers.examine(look({"documents_refused_unsigned": 2, "documents_refused_signature": 3})))
    assert "2 times" in found["signer.unsigned"].text and "3 times" in found["signer.refused"].text


def test_room_for_documents_and_what_a_limit_kept_out() -> None:
    assert not wrong(documents.examine(look(document_bytes=799)))
    assert wrong(documents.examine(look(document_bytes=800)))["document.room"].level == "warning"
    for reason, limit in (("too_large", "document"), ("too_many", "documents"), ("store_full", "store")):
        found = wrong(documents.examine(look({f"documents_refused_{reason}": 2})))["document.refused"]
        assert found.level == "error"
        assert found.text == f"others' documents were refused 2 times, because of limits.{limit} here"
    lost = {"document_conflicts": 1, "fetches_given_up": 1, "batches_given_up": 1}
    found = wrong(documents.examine(look(lost)))
    assert set(found) == {"document.conflicts", "document.given_up"} and "2 fetches" in found["document.given_up"].text


@pytest.mark.slow
def test_as_many_documents_as_there_may_be(tmp_path: Path) -> None:
    with agent(tmp_path / "a", limits={"documents": 2}) as running:
        for key in ("one", "two"):
            running.json("publish", key, "--value", "x")
        found = wrong(documents.examine(look_at(running.directory / "agent.yml")))
    assert "2 of at most 2 (limits.documents)" in found["document.many"].text


def test_a_process_near_its_limits() -> None:
    usage = {"descriptors": 79, "descriptors_limit": 100, "memory": 79 << 20, "memory_limit": 100 << 20}
    assert not wrong(process.examine(look(process=usage)))
    found = wrong(process.examine(look(process={**usage, "descriptors": 80, "memory": 80 << 20})))
    assert found["process.descriptors"].text == "80 of 100 file descriptors are in use"
    assert found["process.memory"].text == "80 of 100 MiB of memory are in use"
    none = {"descriptors": 10, "descriptors_limit": 0, "memory": 1 << 20, "memory_limit": 0}
    assert not wrong(process.examine(look(process=none)))


def test_an_agent_with_few_descriptors_says_so(tmp_path: Path) -> None:
    import resource

    with agent(tmp_path / "a") as running:
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (18, 18))
        found = wrong(process.examine(look_at(running.directory / "agent.yml")))
    assert "of 18 file descriptors" in found["process.descriptors"].text


@pytest.mark.parametrize("what", traffic.CAUSES)
def test_each_cause_of_a_loss_is_told_by_itself(what: str) -> None:
    cause = traffic.CAUSES[what]
    found = wrong(traffic.examine(look(dict.fromkeys(cause.counters, 2))))
    assert list(found) == [f"traffic.{what}"]
    assert found[f"traffic.{what}"].text.startswith(f"{2 * len(cause.counters)} {cause.text} in the 100 s since")
    assert all(name in found[f"traffic.{what}"].text for name in cause.counters)


def test_connections_that_fail() -> None:
    assert not wrong(traffic.examine(look({"dials": 10, "dials_failed": 4})))
    assert "5 of 10" in wrong(traffic.examine(look({"dials": 10, "dials_failed": 5})))["traffic.dials"].text


@pytest.mark.slow
def test_every_counter_that_is_named_is_one_that_agents_have(tmp_path: Path) -> None:
    with agent(tmp_path / "a") as running:
        known = {*running.json("status")["counters"], *NATIVE, *PEKONODE}
    named = {name for cause in traffic.CAUSES.values() for name in cause.counters}
    assert sorted(named - known) == []


def test_a_disk_that_the_agent_finds_wanting() -> None:
    found = wrong(disks.examine(look({"versions_given_up": 3}, storage_error="no room")))
    assert set(found) == {"disk.failing", "disk.lost"} and found["disk.failing"].level == "error"


def test_an_agent_that_tells_less(tmp_path: Path) -> None:
    """Of an earlier release, say."""
    found = wrong(asking.examine(Look("x", state="answers", status=look().status, untold={"keys": "no such path"})))
    assert found["agent.untold"].text == "the agent does not report its keys: no such path"
