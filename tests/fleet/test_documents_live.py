# SPDX-License-Identifier: MIT
"""The modules as a configuration centre, on real agents: all or nothing, files, expiry, history, rollback, repair."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from test_ansible_plugins import INFO, PUBLISH, VERIFY, Fleet, pytestmark, that  # noqa: F401  (the same needs)


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("d"))
    try:
        fleet.wait_for_hosts(fleet.inventory(), {"host1", "host2", "host3"}, 30)
        yield fleet
    finally:
        fleet.close()


def diff(output: str) -> list[str]:
    return [line for line in output.splitlines() if re.match(r"[-+@ ]", line)]


def failing(options: dict[str, Any], *conditions: str) -> list[dict[str, Any]]:
    return [{PUBLISH: options, "register": "f", "ignore_errors": True}, that("f.failed", *conditions)]


def test_a_mapping_is_one_publish_all_or_nothing(fleet: Fleet) -> None:
    documents = {
        "app/a": {"value": {"n": 1}, "content_type": "json"},
        "app/b": {"content": "b: 1\n", "content_type": "yaml"},
        "app/c": {"content": "c"},
    }
    publish = {
        PUBLISH: {"documents": documents, "comment": "together", "wait": "all", "atomic": "required"},
        "register": "r",
    }
    predicted = fleet.play([publish, that("r.changed")], "--check", "--diff")
    versions = "r.documents.values() | map(attribute='version') | unique"
    applied = fleet.play([publish, that("r.changed", "r.atomic", f"{versions} | length == 1")], "--diff")
    assert diff(predicted) == diff(applied) and diff(applied)
    fleet.play([publish, that("not r.changed")], members="2")
    fleet.play(
        [
            {INFO: {"prefix": "app/"}, "register": "i"},
            that("i.documents | length == 3", "i.documents | map(attribute='comment') | unique == ['together']"),
            *failing(
                {"documents": {"app/a": {"content": "changed"}, "app/c": {"content": "x", "if_version": "absent"}}},
                "f.msg is search('app/c')",
            ),
            that("lookup('xdp_gossip.fleet.metadata', 'app/a', parse='json') == {'n': 1}"),
            *failing({"key": "app/a", "content": "{", "content_type": "json"}, "f.msg is search('line 1')"),
            *failing(
                {"documents": {"app/a": {"value": {"n": 2}}, "app/b": {"content": "a: [", "content_type": "yaml"}}},
                "f.msg is search('app/b')",
            ),
            that("lookup('xdp_gossip.fleet.metadata', 'app/a', parse='json') == {'n': 1}"),
        ],
        members="1",
    )


def test_files_are_found_as_copy_finds_them(fleet: Fleet) -> None:
    (fleet.directory / "files").mkdir(exist_ok=True)
    (fleet.directory / "files" / "site.conf").write_bytes(b"caf\xe9 \x00 bytes")
    publish = {PUBLISH: {"key": "file", "src": "site.conf", "wait": "all"}, "register": "r"}
    fleet.play(
        [
            publish,
            that("r.changed"),
            publish,
            that("not r.changed"),
            *failing({"key": "file", "src": "nothing.conf"}, "f.msg is search('nothing.conf')"),
        ]
    )
    target = fleet.directory / "target.conf"
    target.write_text("on the target")
    fleet.play(
        [
            {PUBLISH: {"key": "file", "src": str(target), "remote_src": True}, "register": "r"},
            that("r.changed", "lookup('xdp_gossip.fleet.metadata', 'file') == 'on the target'"),
        ]
    )


def test_what_expires_is_kept_alive_and_ends_everywhere(fleet: Fleet) -> None:
    keep = {PUBLISH: {"key": "lease", "content": "mine", "expires": "2h", "wait": "all"}, "register": "r"}
    fleet.play([keep, that("r.changed"), keep, that("not r.changed")])
    fleet.play(
        [
            {PUBLISH: {"key": "lease", "content": "mine", "expires": 1, "wait": "all"}, "register": "r"},
            that("r.changed"),
            {VERIFY: {"key": "lease", "state": "absent", "wait_timeout": 20}},
        ],
        members="1",
    )


def test_a_rollback_is_a_new_version_with_the_old_content(fleet: Fleet) -> None:
    fleet.play(
        [
            {PUBLISH: {"key": "roll", "content": "one\n", "wait": "all"}, "register": "one"},
            {PUBLISH: {"key": "roll", "content": "two\n", "wait": "all"}, "register": "two"},
        ]
    )
    history = json.loads(
        fleet.run(
            "env",
            f"XDP_GOSSIP_ENDPOINT=unix://{fleet.sockets[0]}",
            "sh",
            "-c",
            'exec "$0" history roll --json',
            str(command()),
        )
    )
    first = history["versions"][1]["version"]
    back = {PUBLISH: {"key": "roll", "rollback_to": first, "wait": "all"}, "register": "r"}
    predicted = fleet.play([back, that("r.changed")], "--check", "--diff")
    applied = fleet.play([back, that("r.changed", f"r.version != '{first}'")], "--diff")
    assert diff(predicted) == diff(applied) and "+one" in diff(applied)
    fleet.play(
        [
            back,
            that("not r.changed", "lookup('xdp_gossip.fleet.metadata', 'roll') == 'one\\n'"),
            *failing(
                {"key": "roll", "rollback_to": "0123456789abcdef@198.18.0.1:8000"}, "f.msg is search('has no version')"
            ),
        ]
    )


def test_what_needs_no_file_is_applied_when_it_is_held_and_a_repair_has_nothing_to_do(fleet: Fleet) -> None:
    fleet.play(
        [
            {PUBLISH: {"key": "plain", "content": "x", "wait": "all", "wait_for": "applied"}, "register": "p"},
            that("p.confirmed == 3"),
            {VERIFY: {"key": "plain", "applied": True}, "register": "v"},
            that("v.converged", "not v.refused", "not v.pending"),
            {VERIFY: {"repair": True}, "register": "v"},
            that("v.converged", "not v.changed"),
            that("query('xdp_gossip.fleet.metadata', 'app/', prefix=true, strip_prefix=true) is truthy"),
        ],
        members="2",
    )


def command() -> str:
    from test_ansible_plugins import ROOT

    return str(ROOT / "agent" / "bin" / "xdp-gossip")
