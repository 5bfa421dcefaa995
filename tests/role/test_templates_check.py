# SPDX-License-Identifier: MIT
"""The check of the role's templates before anything is changed: a whole template passes, a wrong value is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles" / "agent"


def load() -> ModuleType:
    place = ROLE.parents[1] / "plugins" / "module_utils" / "_template_rules.py"
    spec = importlib.util.spec_from_file_location("template_rules", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rules = load()

LEAST = {"name": "site", "path": "/etc/site.conf", "content": ""}
WHOLE = {
    "name": "nginx.conf",
    "src": "files/nginx.conf.j2",
    "path": "/etc/nginx/conf.d/site.conf",
    "owner": "root",
    "group": "www-data",
    "mode": "0640",
    "backup": True,
    "show_output": False,
    "drift": "report",
    "service": "nginx",
    "validate": ["/usr/sbin/nginx", "-t", "-c", "{file}"],
    "reload": ["/usr/bin/systemctl", "reload", "nginx"],
    "user": "root",
    "timeout": 30,
    "wait": 0.5,
}


def test_whole_templates_pass() -> None:
    assert rules.check_templates([]) == []
    assert rules.check_templates([LEAST, WHOLE]) == []


def test_what_is_null_is_not_given() -> None:
    nothing: dict[str, Any] = dict.fromkeys(WHOLE)
    assert rules.check_templates([{**nothing, **LEAST}]) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": None}, "name: expected 1 to 64 letters"),
        ({"name": "../x"}, "name: expected 1 to 64 letters"),
        ({"name": "x\n"}, "name: expected 1 to 64 letters"),
        ({"name": 1}, "name: expected 1 to 64 letters"),
        ({"path": None}, "path: expected the absolute path of a file, without . and .., got none"),
        ({"path": "etc/x"}, "path: expected the absolute path"),
        ({"path": "/etc/"}, "path: expected the absolute path"),
        ({"path": "/etc/../x"}, "path: expected the absolute path"),
        ({"path": "/etc/x/.."}, "path: expected the absolute path"),
        ({"content": None}, "expected exactly one of content, src and source, got none"),
        ({"src": "x.j2"}, "expected exactly one of content, src and source, got content and src"),
        ({"content": None, "source": "x.j2"}, "source: expected the absolute path of a file on the host, got 'x.j2'"),
        ({"mode": 420}, 'mode: expected three octal digits in quotes, such as "0644", got 420'),
        ({"mode": "u=rw"}, "mode: expected three octal digits"),
        ({"owner": "a b"}, "owner: expected the name of an account, got 'a b'"),
        ({"user": 0}, "user: expected the name of an account, got 0"),
        ({"validate": "/usr/sbin/nginx -t {file}"}, "validate: expected a list of arguments"),
        ({"mode": "4755"}, "mode: expected three octal digits"),
        ({"validate": ["nginx", "{file}"]}, "validate: expected the absolute path of a program first, got 'nginx'"),
        ({"reload": []}, "reload: expected a list of arguments"),
        ({"reload": ["/bin/kill", 1]}, "reload: expected a list of arguments"),
        ({"timeout": 0}, "timeout: expected seconds from 0.1 to 600, got 0"),
        ({"timeout": "30"}, "timeout: expected seconds"),
        ({"wait": -1}, "wait: expected seconds from 0 to 60, got -1"),
        ({"backup": "maybe"}, "backup: expected true or false, got 'maybe'"),
        ({"service": ""}, "service: expected the name of one of xdp_gossip_agent_services, got ''"),
        ({"drift": "ignore"}, "drift: expected repair or report, got 'ignore'"),
        ({"show_output": 1}, "show_output: expected true or false, got 1"),
        ({"command": []}, "expected the keys backup, content, drift"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], told: str) -> None:
    (error,) = rules.check_templates([WHOLE, {**LEAST, **change}])
    name = {**LEAST, **change}["name"]
    assert error.startswith("xdp_gossip_agent_templates[1]" + (f" ({name}): " if name else ": ") + told), error


def test_every_problem_is_told_at_once() -> None:
    assert len(rules.check_templates([{}, "text"])) == 4


@pytest.mark.parametrize(("key", "value"), [("name", "site"), ("path", "/etc/site.conf")])
def test_names_and_files_are_each_templates_own(key: str, value: str) -> None:
    (error,) = rules.check_templates([LEAST, {**WHOLE, key: value}])
    assert error == f"xdp_gossip_agent_templates: {key}: expected each once, got {value!r} 2 times"


def test_the_specification_has_the_same_keys() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert set(options["xdp_gossip_agent_templates"]["options"]) == rules.TEMPLATE_KEYS
