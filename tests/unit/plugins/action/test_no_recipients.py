# SPDX-License-Identifier: MIT
"""An empty list of recipients must not publish a content in clear text."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.action.xdp_gossip_publish import _refuse_no_recipients
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import document_spec, wishes_of


def refuse(**given: t.Any) -> None:
    documents = given.get("documents")
    params = dict.fromkeys([*document_spec(), "key", "documents"])
    params.update(given)
    params["state"] = given.get("state", "present")
    if documents is not None:
        params["documents"] = {key: dict(entry) for key, entry in documents.items()}
    _refuse_no_recipients(given, wishes_of(params))


@pytest.mark.parametrize(
    "given",
    [
        {"key": "a", "content": "x", "sealed_for": []},
        {"documents": {"a": {"content": "x"}}, "sealed_for": []},
        {"documents": {"a": {"content": "x", "sealed_for": []}}},
        {"documents": {"a": {"content": "x", "sealed_for": []}, "b": {"content": "x", "sealed_for": ["web"]}}},
        {"documents": {"b": {"content": "x", "sealed_for": ["web"]}, "a": {"content": "x"}}, "sealed_for": []},
    ],
)
def test_nobody_may_read_it(given: dict[str, t.Any]) -> None:
    with pytest.raises(ConfigError, match="document 'a': sealed_for: expected at least one host or group"):
        refuse(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"key": "a", "content": "x"},
        {"key": "a", "content": "x", "sealed_for": ["web"]},
        {"key": "a", "state": "absent", "sealed_for": []},
        {"documents": {"a": {"content": "x", "sealed_for": []}, "b": {"content": "x"}}, "sealed_for": ["web"]},
        {"documents": {"a": {"content": "x"}, "b": {"content": "x", "sealed_for": ["web"]}}},
    ],
)
def test_the_task_says_who_may(given: dict[str, t.Any]) -> None:
    refuse(**given)
