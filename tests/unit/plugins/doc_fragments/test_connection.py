# SPDX-License-Identifier: MIT
"""The connection options are said three times: to people, to Ansible's plugins, and to Python. They are the same."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.xdp_gossip.fleet.plugins.doc_fragments.connection import ModuleDocFragment
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ENVIRONMENT, OPTIONS, Settings

FRAGMENT = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)
PLUGINS = yaml.safe_load(ModuleDocFragment.PLUGINS)["options"]


def test_the_same_options_everywhere():
    assert set(FRAGMENT["options"]) == set(OPTIONS) == set(PLUGINS) == set(ENVIRONMENT)


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_types_and_defaults(option):
    documented = dict(FRAGMENT["options"][option])
    assert documented.pop("description")
    assert documented == {name: value for name, value in OPTIONS[option].items() if name != "no_log"}


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_each_can_come_from_environment_configuration_and_variables(option):
    assert PLUGINS[option] == {
        "env": [{"name": ENVIRONMENT[option]}],
        "ini": [{"section": "xdp_gossip", "key": option}],
        "vars": [{"name": "xdp_gossip_" + option}],
    }


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_the_environment_variable_is_named_to_users_of_modules(option):
    assert "E(%s)" % ENVIRONMENT[option] in " ".join(FRAGMENT["notes"])


def test_python_uses_the_documented_defaults():
    settings = Settings({})
    assert [endpoint.url for endpoint in settings.endpoints] == FRAGMENT["options"]["endpoints"]["default"]
    for option in ("timeout", "retries"):
        assert getattr(settings, option) == FRAGMENT["options"][option]["default"]
