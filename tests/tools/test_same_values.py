# SPDX-License-Identifier: MIT
"""A name, key, address or unit that one surface takes, the others take: the agent's rules and the plugins', compared.

Plugins run on hosts without the agent, so they have rules of their own. This holds them equal, value by value.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xdp_gossip.api import documents, waits
from xdp_gossip.api.client import Client
from xdp_gossip.config.settings import NodeSettings, rules
from xdp_gossip.core.types import MAX_NAME, MAX_PRIVATE_DATA, MAX_ZONE, Address, Node, Version, check_key

ROOT = Path(__file__).resolve().parents[2]
Plugin = Callable[[str], types.ModuleType]


@pytest.fixture(name="plugin", scope="module")
def fixture_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    """Imports modules of the collection, as ``module_utils._nodes``."""
    directory = tmp_path_factory.mktemp("collections")
    (directory / "ansible_collections" / "xdp_gossip").mkdir(parents=True)
    (directory / "ansible_collections" / "xdp_gossip" / "fleet").symlink_to(ROOT)
    before = {name for name in sys.modules if name.startswith("ansible_collections")}
    sys.path.insert(0, str(directory))
    yield lambda name: importlib.import_module(f"ansible_collections.xdp_gossip.fleet.plugins.{name}")
    sys.path.remove(str(directory))
    for name in [name for name in sys.modules if name.startswith("ansible_collections") and name not in before]:
        del sys.modules[name]


def taken(rule: Callable[[], Any]) -> Any:
    """What a rule makes of a value; None when it refuses it."""
    try:
        return rule()
    except Exception as error:
        # Each surface has an error of its own; anything else is a fault of the rule.
        assert type(error).__name__ in ("ValueError", "ConfigError", "Fault", "ClientError"), repr(error)
        return None


KEYS = (
    "a",
    "app/limits",
    "ü/é",
    "a b",
    "a//b",
    "/a",
    "a/",
    "..",
    "a/../b",
    "a/.",
    ".a",
    "a\tb",
    "a\x7fb",
    "a\x80b",
    "\ud800",
    "",
    "x" * 512,
    "x" * 513,
    "ü" * 256,
    "ü" * 257,
    "-",
    "%2F",
    "{{ a }}",
    "a\\b",
    "\u2028",
)
SEEDS = (
    "198.18.0.11:8000",
    "[fd00::11]:8000",
    "fd00::11:8000",
    "[198.18.0.11]:8000",
    "[::ffff:198.18.0.11]:8000",
    "[fe80::1%eth0]:8000",
    "198.18.0.11",
    "198.18.0.11:0",
    "198.18.0.11:65535",
    "198.18.0.11:65536",
    "198.18.0.11:08000",
    "198.18.0.11:000000008000",
    "198.18.0.11:0000080000",
    "198.18.0.11:+80",
    "198.18.0.11:٨",
    "198.18.0.11:",
    ":8000",
    "host.example:8000",
    "198.18.0.011:8000",
    "[]:8000",
    "",
    "198.18.0.11:" + "9" * 5000,
)
CONTENT_TYPES = (
    "raw",
    "text",
    "json",
    "yaml",
    "toml",
    "application/pdf",
    "text/plain; charset=utf-8",
    "",
    "a b",
    "ü",
    "a/b/c",
    "/a",
    "x" * 63,
    "x" * 64,
    "image/svg+xml",
    "JSON",
    "-a",
    "a\n",
)
WAITS = ("all", "majority", "1", "3", "999999", "1000000", "0", "-1", "1.5", "All", "", "two", "٣", " 1")
VERSIONS = (
    "019a3c1e5b2f0000@198.18.0.11:8000",
    "019a3c1e5b2f0000@[fd00::11]:8000",
    "019a3c1e5b2f0000@fd00::11:8000",
    "absent",
    "019A3C1E5B2F0000@198.18.0.11:8000",
    "019a3c1e5b2f000@198.18.0.11:8000",
    "",
    "1@host:8000",
)
ENDPOINTS = (
    "unix:///run/xdp-gossip/api.sock",
    "unix://relative",
    "http://198.18.0.11:8001",
    "https://[fd00::11]:8001",
    "https://host.example:8001",
    "ftp://host:1",
    "http://",
    "http://user@host:1",
    "http://host:1?a=b",
    "http://host:1#a",
    "",
    "/run/xdp-gossip/api.sock",
)


@pytest.mark.parametrize("key", KEYS)
def test_a_document_key(plugin: Plugin, key: str) -> None:
    fleet = plugin("module_utils._fleet")
    assert taken(lambda: check_key(key)) == taken(lambda: fleet.check_key(key))


@pytest.mark.parametrize("text", SEEDS)
def test_an_address_to_join(plugin: Plugin, text: str) -> None:
    ours = taken(lambda: Address.parse(text))
    assert (ours and (ours.ip, ours.port)) == taken(lambda: plugin("module_utils._nodes").parse_seed(text))


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_a_content_type(plugin: Plugin, kind: str) -> None:
    ours = kind if documents._CONTENT_TYPE.fullmatch(kind) else None
    assert ours == taken(lambda: plugin("module_utils._fleet").check_content_type(kind))


@pytest.mark.parametrize("wait", WAITS)
def test_how_many_to_wait_for(plugin: Plugin, wait: str) -> None:
    ours = taken(lambda: waits._wait_for({"wait": wait}))
    assert (None if ours is None else str(ours)) == taken(lambda: plugin("module_utils._convergence").check_wait(wait))


@pytest.mark.parametrize("text", VERSIONS)
def test_a_version(plugin: Plugin, text: str) -> None:
    ours = taken(lambda: Version.parse(text))
    assert (ours is None) == (plugin("module_utils._versions").rank(text) is None)


@pytest.mark.parametrize("url", ENDPOINTS)
def test_an_endpoint(plugin: Plugin, url: str) -> None:
    ours, theirs = taken(lambda: Client(url)), taken(lambda: plugin("module_utils._settings").Endpoint(url))
    assert (ours is None) == (theirs is None)


@pytest.mark.parametrize(
    "name, host",
    [
        ("host1", "host1"),
        ("web-1.example.org", "web-1.example.org"),
        ("web_1", "web_1"),
        ("Büro 1", "198.18.0.11_8000"),
        ("a b", "198.18.0.11_8000"),
        ("-x", "198.18.0.11_8000"),
        ("", "198.18.0.11_8000"),
        ("ü" * 127, "198.18.0.11_8000"),
        ("x" * 253, "x" * 253),
        ("x" * 255, "198.18.0.11_8000"),
    ],
)
def test_a_node_name(plugin: Plugin, name: str, host: str) -> None:
    """The agent takes it, a list of nodes has it, and the inventory has the node: under it, or else its address."""
    assert len(name.encode()) <= MAX_NAME and Node("198.18.0.11", 8000, name).name == name
    entry = {"addr": "198.18.0.11", "port": 8000, "name": name, "state": "alive"}
    node = plugin("module_utils._nodes").parse_node(entry)
    names = plugin("plugin_utils._names")
    preferred = [wanted for wanted in (node["name"], names.address_and_port(node)) if wanted]
    found = [wanted for wanted in preferred if taken_name(names, wanted, node)]
    assert found[0] == host


def taken_name(names: types.ModuleType, wanted: str, node: dict[str, Any]) -> bool:
    """Whether a host may be called so; what is only malformed lets the next preference try."""
    try:
        return bool(names.check_name(wanted, node, (), ()))
    except names.NameMalformed:
        return False


@pytest.mark.parametrize("size", [0, 1, MAX_PRIVATE_DATA])
def test_private_data(plugin: Plugin, size: int) -> None:
    entry = {"addr": "198.18.0.11", "port": 8000, "state": "alive", "private_data": "x" * size}
    ours = Node("198.18.0.11", 8000, "", "x" * size).private_data
    assert plugin("module_utils._nodes").parse_node(entry)["private_data"] == ours


@pytest.mark.parametrize("zone", ["", "fra-1", "z" * MAX_ZONE, "\u00e4" * (MAX_ZONE // 2)])
def test_a_zone(plugin: Plugin, zone: str) -> None:
    """The plugin takes every zone that a library's node may have."""
    entry = {"addr": "198.18.0.11", "port": 8000, "state": "alive", "zone": zone}
    assert plugin("module_utils._nodes").parse_node(entry)["zone"] == zone
    assert rules(NodeSettings, "native", "UDP")["zone"].check("zone", zone) == zone


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("7d", 604800),
        ("2w", 1209600),
        ("3650d", 315360000),
        ("never", 0),
    ],
)
def test_how_long_a_document_lives(plugin: Plugin, text: str, seconds: int) -> None:
    """What the option expires takes is seconds that the API takes."""
    assert plugin("module_utils._expiry").seconds_of(text) == seconds <= documents.MAX_EXPIRES_IN
