# SPDX-License-Identifier: MIT
"""The arguments of the event source: checked, documented, and the same in documentation and schema."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._options import (
    ARGUMENTS,
    EVENTS,
    Options,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "extensions" / "eda" / "plugins" / "event_source" / "membership.py"
FRAGMENT = ROOT / "plugins" / "doc_fragments" / "connection.py"


def documented() -> dict[str, Any]:
    """The options in the plugin's DOCUMENTATION."""
    return dict(yaml.safe_load(runpy.run_path(str(PLUGIN))["DOCUMENTATION"])["options"])


def test_every_argument_is_documented_and_none_else() -> None:
    assert set(documented()) == set(ARGUMENTS)


def test_documentation_and_schema_say_the_same() -> None:
    schema = json.loads((PLUGIN.parent / "schemas" / "membership.json").read_text())
    types = {"list": "array", "str": "string", "bool": "boolean", "float": "number"}
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(ARGUMENTS)
    for name, option in documented().items():
        entry = schema["properties"][name]
        assert entry["type"] == types[option["type"]], name
        assert entry.get("default") == option.get("default"), name
        assert entry.get("items", {}).get("enum") == option.get("choices"), name


def test_the_connection_options_are_those_of_the_modules() -> None:
    modules = yaml.safe_load(runpy.run_path(str(FRAGMENT))["ModuleDocFragment"].DOCUMENTATION)["options"]
    ours = documented()
    for name in set(modules) - {"retries"}:  # a source tries forever
        assert ours[name].get("default") == modules[name].get("default"), name


def test_defaults_are_as_documented() -> None:
    options, docs = Options({}), documented()
    assert (options.prefix, options.initial) == (docs["prefix"]["default"], docs["initial"]["default"])
    assert (options.settle, options.poll) == (docs["settle"]["default"], docs["poll"]["default"])
    settings = options.settings()
    assert [endpoint.url for endpoint in settings.endpoints] == docs["endpoints"]["default"]
    assert settings.timeout == docs["timeout"]["default"]
    assert sorted(options.events) == sorted(docs["events"]["choices"]) == sorted(EVENTS)
    assert sorted(options.states) == sorted(docs["states"]["choices"])


def test_the_examples_are_accepted() -> None:
    examples = yaml.safe_load(runpy.run_path(str(PLUGIN))["EXAMPLES"])
    for example in examples:
        arguments = example["xdp_gossip.fleet.membership"] or {}
        assert set(arguments) <= set(ARGUMENTS)
        # The token's file is not on this machine.
        Options({name: value for name, value in arguments.items() if name != "token_file"})


def test_what_the_rule_engine_adds_is_ignored() -> None:
    Options({"eda_feedback_queue": object(), "token": None})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"endpoint": "http://x"}, "endpoint: expected one of the arguments endpoints, token"),
        ({"endpoints": "http://x"}, "endpoints: expected a list, got str"),
        ({"endpoints": [1]}, "endpoints: expected a list of URLs, got int"),
        ({"endpoints": ["ftp://x"]}, "expected unix:///path, http://host:port"),
        ({"timeout": True}, "timeout: expected a number, got bool"),
        ({"timeout": -1}, "timeout: expected"),
        ({"poll": 61}, "poll: expected 1 to 60 seconds, got 61"),
        ({"poll": 0}, "poll: expected 1 to 60 seconds, got 0"),
        ({"settle": -1}, "settle: expected 0 to 3600 seconds"),
        ({"settle": float("nan")}, "settle: expected 0 to 3600 seconds"),
        ({"initial": "yes"}, "initial: expected true or false, got str"),
        ({"events": ["died"]}, "events: expected some of join, recover"),
        ({"events": [["dead"]]}, "events: expected some of join, recover"),
        ({"states": ["gone"]}, "states: expected some of alive, suspect, agent_down, dead, left, got 'gone'"),
        ({"prefix": "x" * 513}, "prefix: expected at most 512 bytes"),
        ({"token": "a", "token_file": "b"}, "token and token_file"),
        ({"token_file": "/nowhere/token"}, "token_file /nowhere/token: expected a readable file"),
        ({"client_key": "/a"}, "client_key: expected client_cert beside it"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Options(arguments)
    assert complaint in str(caught.value)


def test_filters() -> None:
    options = Options({"events": ["dead", "join", "document_changed"], "states": ["dead"]})
    assert options.wants({"type": "dead", "node": {"state": "dead"}})
    assert not options.wants({"type": "join", "node": {"state": "alive"}})
    assert not options.wants({"type": "leave", "node": {"state": "dead"}})
    assert options.wants({"type": "document_changed", "document": {}})
    assert not options.wants({"type": "document_deleted", "document": {}})
