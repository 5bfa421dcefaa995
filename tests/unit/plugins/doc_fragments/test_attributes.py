# SPDX-License-Identifier: MIT
"""What modules are said to support comes from the fragments, in the order that Ansible merges them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml
from ansible_collections.xdp_gossip.fleet.plugins import modules

SHARED = "xdp_gossip.fleet.attributes"
NAMES = sorted(path.stem for path in Path(next(iter(modules.__path__))).glob("xdp_gossip_*.py"))


def documentation(name):
    return yaml.safe_load(importlib.import_module(modules.__name__ + "." + name).DOCUMENTATION)


@pytest.mark.parametrize("name", NAMES)
def test_every_module_extends_them_and_repeats_nothing(name):
    document = documentation(name)
    assert SHARED in document["extends_documentation_fragment"]
    assert [key for key, said in document.get("attributes", {}).items() if "description" in said] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_changes_nothing_has_no_differences_to_show(name):
    extended = documentation(name)["extends_documentation_fragment"]
    if SHARED + ".read_only" in extended:
        assert extended.index(SHARED + ".read_only") < extended.index(SHARED)
