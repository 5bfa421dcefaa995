# SPDX-License-Identifier: MIT
"""Where ``src`` is looked for: where ``ansible.builtin.copy`` looks; collections' playbooks also where one works."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_playbook import as_playbook, play, run_playbook


@pytest.fixture(name="member")
def fixture_member(tmp_path: Path) -> t.Iterator[FakeMember]:
    with FakeMember(unix=str(tmp_path / "api.sock")) as member:
        member.nodes = [node("198.18.0.11", "m1", local=True)]
        yield member


def task(member: FakeMember, module: str = "publish", **options: t.Any) -> dict[str, t.Any]:
    return {"xdp_gossip.fleet.xdp_gossip_" + module: dict(options, endpoints=[member.url])}


@pytest.fixture(name="book")
def fixture_book(tmp_path: Path, member: FakeMember) -> str:
    """A playbook of a collection, which publishes and verifies the file ``limits.json``; by its name."""
    books = tmp_path / "ansible_collections" / "some" / "books"
    (books / "playbooks").mkdir(parents=True)
    (books / "galaxy.yml").write_text("{namespace: some, name: books, version: 1.0.0}")
    tasks = [
        task(member, key="a", src="limits.json"),
        task(member, "verify", key="a", src="limits.json"),
        task(member, documents={"b": {"src": "limits.json"}}),
    ]
    (books / "playbooks" / "publish.yml").write_text(as_playbook(tasks))
    return "some.books.publish"


def test_a_playbook_of_a_collection_looks_in_the_current_directory(tmp_path, member, book):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "limits.json").write_text("{}")
    run_playbook(tmp_path, book, cwd=tmp_path / "work")
    assert member.documents["a"]["value"] == member.documents["b"]["value"] == b"{}"
    assert member.documents["a"]["content_type"] == "json"


def test_its_own_files_come_first(tmp_path, member, book):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "limits.json").write_text("{}")
    files = tmp_path / "ansible_collections" / "some" / "books" / "playbooks" / "files"
    files.mkdir()
    (files / "limits.json").write_text("[]")
    run_playbook(tmp_path, book, cwd=tmp_path / "work")
    assert member.documents["a"]["value"] == b"[]"


def test_the_error_lists_each_place(tmp_path, member, book):
    (tmp_path / "work").mkdir()
    output = run_playbook(tmp_path, book, cwd=tmp_path / "work", fails=True)
    playbooks = tmp_path / "ansible_collections" / "some" / "books" / "playbooks"
    for place in (playbooks / "files", playbooks, tmp_path / "work"):
        assert str(place / "limits.json") in output, place
    assert not member.documents


def test_any_other_playbook_looks_where_copy_does(tmp_path, member):
    """Publishing a file that happens to lie where somebody stands would be worse than an error."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "limits.json").write_text("{}")
    output = play(tmp_path, [task(member, key="a", src="limits.json")], cwd=tmp_path / "work", fails=True)
    for place in (tmp_path / "files" / "limits.json", tmp_path / "limits.json"):
        assert str(place) in output
    assert str(tmp_path / "work" / "limits.json") not in output and not member.documents
    (tmp_path / "limits.json").write_text("[]")
    play(tmp_path, [task(member, key="a", src="limits.json")], cwd=tmp_path / "work")
    assert member.documents["a"]["value"] == b"[]"
