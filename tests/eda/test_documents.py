# SPDX-License-Identifier: MIT
"""What is told of documents, from one list to the next."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._documents import (
    DocumentView,
    parse_document,
    parse_documents,
    parse_refusal,
)


def document(clock: int, key: str = "app", **fields: Any) -> dict[str, Any]:
    """A document's description as the API gives it."""
    return {
        "key": key,
        "version": f"{clock:016x}@198.18.0.11:8000",
        "digest": "sha256:" + "0" * 64,
        "size": 3,
        "content_type": "json",
        "author": "",
        "comment": "",
        "published_at": "2026-01-01T00:00:00.000Z",
        "deleted": False,
        **fields,
    }


class Story:
    """A view that knows ``start``, and what it tells of further lists."""

    def __init__(self, *start: dict[str, Any]) -> None:
        self.view = DocumentView()
        assert self.view.compare(_listed(start), {}, True) == []

    def then(
        self, *documents: dict[str, Any], deleted: tuple[dict[str, Any], ...] = (), agreed: bool = False
    ) -> list[tuple[str, str]]:
        """(type, key) of what is told; by default by a member that not all others agree with."""
        events = self.view.compare(_listed(documents), _listed(deleted), agreed)
        return [(event["type"], event["document"]["key"]) for event in events]


def _listed(documents: Any) -> dict[str, Any]:
    good, problems = parse_documents(list(documents))
    assert not problems
    return good


CHANGED, DELETED = ("document_changed", "app"), ("document_deleted", "app")


def test_a_life() -> None:
    story = Story()
    assert story.then(document(1)) == [CHANGED]
    assert story.then(document(1)) == []
    assert story.then(document(2)) == [CHANGED]
    assert story.then(deleted=(document(3, deleted=True),)) == [DELETED]
    assert story.then() == []
    assert story.then(document(4)) == [CHANGED]


def test_the_first_list_is_told_only_when_asked_for() -> None:
    (event,) = DocumentView().compare(_listed([document(1)]), {}, True, tell_initial=True)
    assert (event["type"], event["initial"], event["previous"]) == ("document_changed", True, None)


def test_a_change_names_what_was_before() -> None:
    view = DocumentView()
    view.compare(_listed([document(1)]), {}, True)
    (event,) = view.compare(_listed([document(2)]), {}, True)
    assert event["previous"]["version"].startswith("0000000000000001@")


def test_a_member_that_lags_behind_undoes_nothing() -> None:
    story = Story(document(5))
    assert story.then(document(4)) == []
    assert story.then() == []
    assert story.then(document(5)) == []
    assert story.then(document(6)) == [CHANGED]


def test_a_member_that_lags_behind_lists_what_was_deleted_and_nothing_is_told() -> None:
    story = Story(document(5))
    assert story.then(deleted=(document(6, deleted=True),)) == [DELETED]
    assert story.then(document(5)) == []
    assert story.then() == []


def test_an_old_deletion_does_not_delete_what_was_written_since() -> None:
    story = Story(document(5))
    assert story.then(deleted=(document(4, deleted=True),)) == []


def test_a_deletion_that_nobody_saw_is_told_once_all_agree() -> None:
    story = Story(document(5))
    assert story.then() == []
    assert story.then(agreed=True) == [DELETED]
    assert story.then(agreed=True) == []


def test_an_older_version_counts_once_all_agree() -> None:
    # A document written under a wrong clock gets a new, lower version.
    story = Story(document(99))
    assert story.then(document(5)) == []
    assert story.then(document(5), agreed=True) == [CHANGED]
    assert story.then(document(6)) == [CHANGED]


def test_of_two_versions_of_the_same_moment_each_is_told() -> None:
    # Which one wins is the agents' rule; a second telling is better than none.
    story = Story(document(5))
    assert story.then(document(5, version=f"{5:016x}@198.18.0.12:8000")) == [CHANGED]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("text", "expected an object"),
        (document(1, key=""), "key: expected 1 to 512"),
        (document(1, key="a\nb"), "no control characters"),
        (document(1, key=7), "key: expected text"),
        (document(1, version="7"), "version: expected 16 hex digits"),
        (document(1, version=f"{1:016x}@{{{{ evil }}}}"), "version: expected 16 hex digits"),
        (document(1, size=-1), "size: expected"),
        (document(1, size=True), "size: expected"),
        (document(1, author=None), "author: expected text"),
    ],
)
def test_a_malformed_document_is_left_out_and_named(entry: Any, complaint: str) -> None:
    good, problems = parse_documents([document(1, "good"), entry])
    assert list(good) == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith("document 2 of the list: ")
    assert complaint in problems[0]


def refusal(**fields: Any) -> dict[str, Any]:
    """What the feed says of a refused version."""
    own = {"key": "app", "version": document(1)["version"], "reason": "unsigned", "from": "[fd00::1]:8000"}
    return {**own, **fields}


def test_a_refusal() -> None:
    assert parse_refusal(refusal(other=1)) == refusal()
    assert parse_refusal(refusal(**{"from": None}))["from"] == ""
    assert parse_refusal(refusal(reason="a\nb" + "x" * 2000))["reason"] == "a?b" + "x" * 1021 + "..."


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (None, "refusal: expected an object"),
        (refusal(key=""), "key: expected"),
        (refusal(version="7"), "version: expected"),
        (refusal(reason=7), "reason: expected text"),
        (refusal(**{"from": 7}), "from: expected text"),
        (refusal(**{"from": "a host:8000"}), "from: expected an address"),
    ],
)
def test_a_malformed_refusal_is_told(entry: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_refusal(entry)


def test_free_text_is_made_fit_for_one_line() -> None:
    assert parse_document(document(1, comment="a\nb\x1b[0m"))["comment"] == "a?b?[0m"


@pytest.mark.parametrize("answer", [None, {}, "x", [None] * 200_001])
def test_what_is_no_list_of_documents_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match="documents: expected"):
        parse_documents(answer)
