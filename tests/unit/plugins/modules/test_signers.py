# SPDX-License-Identifier: MIT
"""xdp_gossip_signers: which documents members with other signers would no longer return."""

from __future__ import annotations

import base64
import hashlib
import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

#: 2027-01-15T08:00:00Z, in milliseconds since the epoch.
SIGNED_AT = 1_800_000_000_000


def signer(name: str, *prefixes: str, **more: str) -> dict[str, t.Any]:
    line = "ssh-ed25519 %s comment" % base64.b64encode(name.encode()).decode()
    return dict(more, name=name, public_key=line, prefixes=list(prefixes))


def signed_by(name: str) -> dict[str, t.Any]:
    digest = base64.b64encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=")
    return {"signer": None, "key": "SHA256:" + digest, "withdrawn": False}


@pytest.fixture(name="member")
def fixture_member(tmp_path: Path) -> t.Iterator[FakeMember]:
    with FakeMember(unix=str(tmp_path / "api.sock")) as member:
        for key, name in (("app/a", "alice"), ("app/b", None), ("app/bob/c", "bob"), ("free", None), ("db/d", "eve")):
            held = member.put(key, b"x")
            held.update(version="%016x@[100::1]:1" % (SIGNED_AT << 16), signed_by=signed_by(name) if name else None)
        yield member


def ask(member: FakeMember, *signers: dict[str, t.Any]) -> list[str]:
    result = run_module("signers", {"socket": member.url[len("unix://") :], "signers": list(signers)})
    assert result["answered"] and not result["changed"]
    return result["unsigned"]


def test_documents_of_no_prefix_need_no_signature(member):
    assert ask(member, signer("alice", "other/")) == []


def test_the_longest_prefix_decides_and_the_key_counts(member):
    told = ask(member, signer("alice", "app/"), signer("bob", "app/bob/", "db/"), signer("carol", "db/"))
    assert told == [
        "app/b (no signature, expected one by alice)",
        "db/d (a signature by %s, expected one by bob or carol)" % signed_by("eve")["key"],
    ]
    assert ask(member, signer("alice", "app/bob/"))[0].startswith("app/bob/c (a signature by SHA256:")


def test_a_signature_after_valid_before_is_lost(member):
    assert ask(member, signer("alice", "app/a", valid_before="2027-01-15T08:00:01Z")) == []
    told = ask(member, signer("alice", "app/a", valid_before="2027-01-15T08:00:00Z"))
    assert told == ["app/a (signed by alice after valid_before)"]


def test_without_an_agent_nothing_is_said(tmp_path, member):
    result = run_module("signers", {"socket": str(tmp_path / "nobody"), "signers": [signer("a", "app/")]})
    assert (result["rc"], result["answered"], result["unsigned"]) == (0, False, [])
    member.misbehave = lambda handler: handler.reply(200, {"documents": "none"})
    result = run_module("signers", {"socket": member.url[len("unix://") :], "signers": [signer("a", "app/")]})
    assert not result["answered"]


def test_a_wrong_key_is_an_error(member):
    given = dict(signer("alice", "app/"), public_key="ssh-ed25519")
    result = run_module("signers", {"signers": [given]})
    assert result["rc"] == 1 and "public_key: expected a line such as" in result["msg"]
