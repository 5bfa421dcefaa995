# SPDX-License-Identifier: MIT
"""The inventory plugin nodelist, loaded as Ansible loads it, reading from a member."""

from __future__ import annotations

import json
import typing as t

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible.utils.display import Display
from ansible.vars.manager import VariableManager
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port, node


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember() as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12, 13)]
        yield member


@pytest.fixture(name="warnings")
def fixture_warnings(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda self, msg, *args, **kwargs: lines.append(str(msg)))
    monkeypatch.setattr(  # 2.19 and later report a failed source this way
        Display, "error_as_warning", lambda self, msg, exception, **kw: lines.append(str(exception)), raising=False
    )
    return lines


@pytest.fixture(name="read")
def fixture_read(tmp_path, monkeypatch, warnings):
    monkeypatch.setattr(constants, "INVENTORY_ANY_UNPARSED_IS_FAILED", True)

    def read(member: FakeMember | None, earlier: str = "", **options: t.Any) -> InventoryManager:
        config = dict({"plugin": "xdp_gossip.fleet.nodelist", "timeout": 2, "retries": 0}, **options)
        if member is not None:
            config.setdefault("endpoints", [member.url])
        path = tmp_path / "fleet.nodelist.yml"
        path.write_text(yaml.safe_dump(config))
        sources = [str(path)]
        if earlier:
            (tmp_path / "earlier.ini").write_text(earlier)
            sources.insert(0, str(tmp_path / "earlier.ini"))
        return InventoryManager(loader=DataLoader(), sources=sources)

    return read


def names(inventory: InventoryManager) -> list[str]:
    return sorted(str(host) for host in inventory.hosts)


def groups(inventory: InventoryManager) -> dict[str, list[str]]:
    found = {str(name): sorted(str(host) for host in group.get_hosts()) for name, group in inventory.groups.items()}
    return {name: hosts for name, hosts in found.items() if name not in ("all", "ungrouped")}


@pytest.mark.parametrize("name", ["nodelist.yml", "a.nodelist.yaml", "xdp_gossip.yml", "prod_xdp_gossip.yaml"])
def test_its_files_are_recognised_by_their_names(tmp_path, name):
    plugin = inventory_loader.get("xdp_gossip.fleet.nodelist")
    (tmp_path / name).write_text("")
    assert plugin.verify_file(str(tmp_path / name))
    (tmp_path / "hosts.yml").write_text("")
    assert not plugin.verify_file(str(tmp_path / "hosts.yml"))
    assert not plugin.verify_file(str(tmp_path / "none" / name))


def test_a_host_has_exactly_two_variables(member, read):
    inventory = read(member)
    assert names(inventory) == ["host11", "host12", "host13"]
    own = dict(inventory.hosts["host11"].vars)
    own.pop("inventory_file", None)
    own.pop("inventory_dir", None)
    assert own == {"ansible_host": "198.18.0.11", "xdp_gossip": member.nodes[0]}
    assert groups(inventory) == {}


def test_only_nodes_of_the_wanted_states(member, read):
    for entry, state in zip(member.nodes, ("alive", "suspect", "dead")):
        entry["state"] = state
    assert names(read(member)) == ["host11"]
    assert names(read(member, states=["suspect", "dead"])) == ["host12", "host13"]


def test_states_are_filtered_here_too(member, read):
    # A member that ignores the question must not bring dead hosts in.
    member.nodes[0]["state"] = "dead"
    answer = {"nodes": list(member.nodes)}
    member.misbehave = lambda handler: handler.reply(200, answer)
    assert names(read(member)) == ["host12", "host13"]


@pytest.mark.parametrize(
    "hostnames, expected",
    [
        (["addr"], ["198.18.0.11", "198.18.0.12", "fd00::13"]),
        (["addr_port"], ["198.18.0.11_8000", "198.18.0.12_8000", "fd00--13_8000"]),
        (["name"], ["host11", "host13"]),
        (["name", "addr"], ["198.18.0.12", "host11", "host13"]),
        (["xdp_gossip.private_data", "addr_port"], ["198.18.0.12_8000", "db1", "fd00--13_8000"]),
        (["'n' ~ xdp_gossip.name | default('x', true)"], ["nhost11", "nhost13", "nx"]),
        (["nosuchvariable", "name"], ["host11", "host13"]),
    ],
)
def test_hostnames_in_order_of_preference(member, read, warnings, hostnames, expected):
    member.nodes[0]["private_data"] = "db1"
    member.nodes[1]["name"] = ""
    member.nodes[2]["addr"] = "fd00::13"
    assert names(read(member, hostnames=hostnames)) == expected
    left_out = 3 - len(expected)
    assert len([line for line in warnings if "none of the hostnames" in line]) == left_out


def test_names_made_of_addresses_can_be_targeted(member, read):
    member.nodes = [node("fd00::13"), node("198.18.0.11")]
    inventory = read(member, hostnames=["addr_port"])
    assert [str(host) for host in inventory.get_hosts("fd00--13_8000")] == ["fd00--13_8000"]
    assert [str(host) for host in inventory.get_hosts("198.18.0.11_8000")] == ["198.18.0.11_8000"]
    assert inventory.hosts["fd00--13_8000"].vars["ansible_host"] == "fd00::13"


def test_constructed_features(member, read):
    for entry, zone in zip(member.nodes, "aab"):
        entry["private_data"] = json.dumps({"zone": zone})
    inventory = read(
        member,
        compose={"zone": "(xdp_gossip.private_data | from_json).zone", "port": "xdp_gossip.port"},
        groups={"eleven": "xdp_gossip.name == 'host11'"},
        keyed_groups=[
            {"key": "xdp_gossip.state"},
            {"key": "zone", "prefix": "zone", "parent_group": "zones"},
            {"key": "xdp_gossip.protocol", "prefix": "plane", "separator": ""},
        ],
    )
    everybody = ["host11", "host12", "host13"]
    assert groups(inventory) == {
        "eleven": ["host11"], "xdp_gossip_alive": everybody, "zone_a": everybody[:2], "zone_b": everybody[2:],
        "zones": everybody, "planeUDP": everybody,
    }
    assert inventory.hosts["host13"].vars["zone"] == "b"
    assert str(inventory.hosts["host13"].vars["port"]) == "8000"  # 2.18 makes text of it, as everywhere


def test_extra_vars_may_be_used(member, read):
    # set by the manager of a play; the plugin only has to accept the option
    assert names(read(member, use_extra_vars=True)) == ["host11", "host12", "host13"]


@pytest.mark.parametrize("strict", [False, True])
def test_strict_decides_about_expressions_that_fail(member, read, strict):
    options = {"compose": {"zone": "xdp_gossip.nosuch.field"}, "strict": strict}
    if strict:
        with pytest.raises(AnsibleError):
            read(member, **options)
    else:
        assert "zone" not in read(member, **options).hosts["host11"].vars


@pytest.mark.parametrize(
    "entry, said",
    [
        ({"key": "xdp_gossip.name", "prefix": ""}, "prefix"),
        ({"key": "xdp_gossip.name", "prefix": "_"}, "prefix"),
        ({"key": "xdp_gossip.name", "prefix": None}, "prefix"),
        ({"key": "xdp_gossip.name", "parent_group": "{{ xdp_gossip.name }}"}, "parent_group"),
    ],
)
def test_keyed_groups_without_prefix_are_refused(member, read, warnings, entry, said):
    with pytest.raises(AnsibleError):
        read(member, keyed_groups=[entry])
    assert said in "".join(warnings)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"states": ["zombie"]}, "zombie"),
        ({"endpoints": ["ftp://x"]}, "unix:///path"),
        ({"token": "a", "token_file": "/b"}, "only one of them"),
        ({"plugin": "amazon.aws.aws_ec2"}, ""),
    ],
)
def test_bad_configuration(member, read, warnings, options, said):
    with pytest.raises(AnsibleError):
        read(member, **options)
    assert said in "".join(warnings)
    assert not member.requests


# Endpoints


def test_the_first_member_that_answers_is_enough(member, read):
    dead = ["http://127.0.0.1:%d" % free_port(), "unix:///does/not/exist"]
    assert len(names(read(member, endpoints=dead + [member.url]))) == 3


def test_an_unreachable_fleet_is_an_error_that_lists_each_endpoint_and_why(tmp_path, read, warnings):
    dead = ["http://127.0.0.1:%d" % free_port(), "unix://%s/none" % tmp_path]
    with pytest.raises(AnsibleError):
        read(None, endpoints=dead)
    text = "".join(warnings)
    assert dead[0] + ": Connection refused" in text and dead[1] + ": No such file or directory" in text


def test_unix_socket(tmp_path, read):
    with FakeMember(unix=str(tmp_path / "s")) as member:
        member.nodes = [node("198.18.0.11", "one")]
        assert names(read(member)) == ["one"]


@pytest.mark.parametrize("way", ["option", "file", "environment", "template"])
def test_token(tmp_path, read, monkeypatch, warnings, way):
    (tmp_path / "token").write_text("secret\n")
    options: dict[str, t.Any] = {
        "option": {"token": "secret"}, "file": {"token_file": str(tmp_path / "token")}, "environment": {},
        "template": {"token": "{{ lookup('ansible.builtin.file', '%s') }}" % (tmp_path / "token")},
    }[way]
    if way == "environment":
        monkeypatch.setenv("XDP_GOSSIP_TOKEN", "secret")
    with FakeMember(token="secret") as member:
        member.nodes = [node("198.18.0.11", "one")]
        assert names(read(member, **options)) == ["one"]
        with pytest.raises(AnsibleError):
            read(member, **dict(options, token="wrong", token_file=None))
        assert "401" in "".join(warnings)


# Cache


@pytest.fixture(name="cached")
def fixture_cached(tmp_path, read):
    def cached(member: FakeMember | None, **options: t.Any) -> InventoryManager:
        options = dict({"cache_timeout": 3600, "cache_plugin": "ansible.builtin.jsonfile"}, **options)
        return read(member, cache=True, cache_connection=str(tmp_path / "cache"), **options)

    return cached


def cache_files(tmp_path) -> list[t.Any]:
    return list((tmp_path / "cache").iterdir())


def test_a_warm_cache_asks_nobody(member, cached, tmp_path):
    cold = cached(member, compose={"a": "xdp_gossip.name"})
    assert len(member.requests) == 1
    before = cache_files(tmp_path)[0].stat().st_mtime_ns
    warm = cached(member, compose={"a": "xdp_gossip.name"})
    assert len(member.requests) == 1
    assert cache_files(tmp_path)[0].stat().st_mtime_ns == before  # a hit makes nothing younger
    for name in names(cold):
        assert warm.hosts[name].vars == cold.hosts[name].vars


def test_refreshing_bypasses_the_cache_and_renews_it(member, cached):
    inventory = cached(member)
    member.nodes.pop()
    assert len(names(cached(member))) == 3
    inventory.refresh_inventory()
    assert names(inventory) == ["host11", "host12"] and len(member.requests) == 2
    assert len(names(cached(member))) == 2 and len(member.requests) == 2


def test_a_cache_for_other_states_or_endpoints_does_not_count(member, cached):
    cached(member)
    cached(member, states=["alive", "suspect"])
    cached(member, states=["alive", "suspect"], endpoints=["http://127.0.0.1:%d" % free_port(), member.url])
    assert len(member.requests) == 3


def test_a_failed_fetch_leaves_the_cache_alone(member, cached, tmp_path):
    inventory = cached(member)
    text = cache_files(tmp_path)[0].read_text()
    member.misbehave = lambda handler: handler.error(503, "starting")
    with pytest.raises(AnsibleError):
        inventory.refresh_inventory()
    assert cache_files(tmp_path)[0].read_text() == text


def test_variables_reach_a_play(member, read):
    inventory = read(member, compose={"upper": "xdp_gossip.name | upper"})
    manager = VariableManager(loader=DataLoader(), inventory=inventory)
    variables = manager.get_vars(host=inventory.get_host("host12"))
    assert (variables["ansible_host"], variables["upper"]) == ("198.18.0.12", "HOST12")
