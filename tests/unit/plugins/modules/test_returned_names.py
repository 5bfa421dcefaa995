# SPDX-License-Identifier: MIT
"""No module returns what Ansible itself writes into a result: ``until`` counts ``attempts``, a loop has ``results``.

``run_module`` looks at every result of the other tests, failures too; here is what is documented.
"""

from __future__ import annotations

import importlib
import re

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import free_port
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.reserved import reserved, reserved_in
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

#: Options with which each module asks a member.
MODULES = {"info": {}, "node": {"name": "a"}, "publish": {"content": "a"}, "verify": {}}


def documented(name: str) -> set[str]:
    """The names at the top level of RETURN. Without YAML, which the oldest hosts lack."""
    module = importlib.import_module("ansible_collections.xdp_gossip.fleet.plugins.modules.xdp_gossip_" + name)
    return set(re.findall(r"^([a-z_]+):", module.RETURN, re.M))


@pytest.mark.parametrize("name", MODULES)
def test_no_documented_name_is_ansibles(name):
    names = documented(name)
    assert {"endpoint", "failed_endpoints", "error"} <= names
    assert reserved_in(names) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_failure_returns_what_is_documented(name):
    dead = "http://127.0.0.1:%d" % free_port()
    result = run_module(name, dict(MODULES[name], endpoints=[dead], retries=0))
    assert result["failed"] and result["failed_endpoints"] == [{"endpoint": dead, "reason": "Connection refused"}]
    ours = set(result) - {"rc", "output", "failed", "msg", "invocation", "exception", "changed"}
    assert ours <= documented(name)


def test_the_list_has_what_hurt():
    assert {"attempts", "results", "retries", "rc", "unreachable", "items", "keys"} <= reserved()
    assert reserved_in(["results", "attempts", "_ansible_x", "endpoint"]) == ["_ansible_x", "attempts", "results"]
