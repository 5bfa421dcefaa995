# SPDX-License-Identifier: MIT
"""The inventory plugin nodelist, loaded as Ansible loads it, reading from a member."""

from __future__ import annotations

import json
import time
import typing as t

import pytest
import yaml
from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
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


def test_hosts_without_agent_are_listed_in_a_group_of_their_own(member, read):
    member.nodes[1]["state"] = "agent_down"
    inventory = read(member)
    assert names(inventory) == ["host11", "host12", "host13"]
    assert groups(inventory) == {"xdp_gossip_agent_down": ["host12"]}
    assert inventory.hosts["host12"].vars["ansible_host"] == "198.18.0.12"
    assert [str(host) for host in inventory.get_hosts("all:!xdp_gossip_agent_down")] == ["host11", "host13"]
    assert groups(read(member, states=["alive"])) == {}


def test_a_host_named_like_the_group_without_agent_is_refused(member, read, warnings):
    member.nodes[0]["name"] = "xdp_gossip_agent_down"
    member.nodes[1]["state"] = "agent_down"
    assert names(read(member, hostnames=["name"])) == ["host12", "host13"]
    assert "left out" in warnings[0]


def test_an_isolated_member_is_passed_over(member, read, warnings):
    member.isolated = True
    with FakeMember() as second:
        second.nodes = [node("198.18.0.12", "host12")]
        assert names(read(None, endpoints=[member.url, second.url])) == ["host12"]
        assert len(warnings) == 1 and member.url + " is isolated" in warnings[0]
        second.isolated = True
        assert names(read(None, endpoints=[member.url, second.url])) == ["host12"]
        assert "there is no better answer" in warnings[-1]


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
        "eleven": ["host11"],
        "xdp_gossip_alive": everybody,
        "zone_a": everybody[:2],
        "zone_b": everybody[2:],
        "zones": everybody,
        "planeUDP": everybody,
    }
    assert inventory.hosts["host13"].vars["zone"] == "b"
    assert str(inventory.hosts["host13"].vars["port"]) == "8000"  # 2.18 makes text of it, as everywhere


# Zones


@pytest.fixture(name="zoned")
def fixture_zoned(member):
    """Two hosts in zones, one without."""
    for entry, zone in zip(member.nodes, ("a", "eu-1", "")):
        entry["zone"] = zone
    return member


BY_ZONE = {"key": "xdp_gossip.zone", "prefix": "zone"}


def test_the_zone_is_a_variable_and_a_group(zoned, read, warnings):
    inventory = read(zoned, keyed_groups=[BY_ZONE])
    assert [inventory.hosts[name].vars["xdp_gossip"]["zone"] for name in names(inventory)] == ["a", "eu-1", ""]
    assert groups(inventory) == {"zone_a": ["host11"], "zone_eu_1": ["host12"]} and not warnings


def test_hosts_without_a_zone_have_a_group_if_it_is_named(zoned, read, warnings):
    with pytest.raises(AnsibleError):
        read(zoned, keyed_groups=[BY_ZONE], strict=True)
    assert "xdp_gossip.zone" in "".join(warnings)
    inventory = read(zoned, keyed_groups=[dict(BY_ZONE, default_value="none")], strict=True)
    assert groups(inventory) == {"zone_a": ["host11"], "zone_eu_1": ["host12"], "zone_none": ["host13"]}


@pytest.mark.parametrize(
    "filters, expected",
    [
        ([{"include": "xdp_gossip.zone == 'a'"}, {"exclude": True}], ["host11"]),
        ([{"exclude": "xdp_gossip.zone in ['a', 'b']"}], ["host12", "host13"]),
        ([{"exclude": "not xdp_gossip.zone"}], ["host11", "host12"]),
    ],
)
def test_zones_are_filtered_like_any_field(zoned, read, filters, expected):
    assert names(read(zoned, filters=filters)) == expected


@pytest.mark.parametrize("consistency", ["one", "majority"])
def test_an_older_agent_knows_no_zones(member, read, warnings, consistency):
    for entry in member.nodes:
        del entry["zone"]
    inventory = read(member, keyed_groups=[BY_ZONE], consistency=consistency)
    assert names(inventory) == ["host11", "host12", "host13"] and groups(inventory) == {} and not warnings
    assert inventory.hosts["host11"].vars["xdp_gossip"]["zone"] == ""
    assert names(read(member, filters=[{"exclude": "xdp_gossip.zone == 'a'"}])) == names(inventory)


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
        ({"key": "xdp_gossip.name", "parent_group": "{% if true %}a{% endif %}"}, "parent_group"),
        ({"prefix": "a"}, "key"),
        ({"key": ""}, "key"),
        ({"key": ["a"]}, "key"),
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
        "option": {"token": "secret"},
        "file": {"token_file": str(tmp_path / "token")},
        "environment": {},
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


@pytest.mark.parametrize("named", ["keys/token", "./keys/token", "{{ 'keys' }}/token", "$KEYS/token", "~/token"])
def test_a_relative_path_is_beside_the_file(tmp_path, read, monkeypatch, named):
    """Not in the current directory, which is that of whoever starts Ansible."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "token").write_text("secret\n")
    (tmp_path / "elsewhere" / "keys").mkdir(parents=True)
    (tmp_path / "elsewhere" / "keys" / "token").write_text("another\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("KEYS", "keys")
    monkeypatch.setenv("HOME", str(tmp_path / "keys"))
    with FakeMember(token="secret") as member:
        member.nodes = [node("198.18.0.11", "one")]
        assert names(read(member, token_file=named)) == ["one"]


@pytest.mark.parametrize("option", ["token_file", "ca_path", "client_cert"])
def test_a_path_that_leads_nowhere_is_named_as_it_was_looked_up(tmp_path, read, warnings, option):
    with FakeMember() as member, pytest.raises(AnsibleError):
        read(None, endpoints=[member.url.replace("http", "https")], **{option: "keys/none"})
    assert str(tmp_path / "keys" / "none") in "".join(warnings)


def test_a_path_of_the_environment_is_in_the_current_directory(tmp_path, read, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "token").write_text("secret\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("XDP_GOSSIP_TOKEN_FILE", "token")
    with FakeMember(token="secret") as member:
        member.nodes = [node("198.18.0.11", "one")]
        assert names(read(member)) == ["one"]


# Cache


class Clock:
    """The time that the plugin sees, in seconds after now."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = time.time

    def time(self) -> float:
        return self._real() + self.ahead


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


@pytest.fixture(name="cached")
def fixture_cached(tmp_path, read):
    def cached(member: FakeMember | None, **options: t.Any) -> InventoryManager:
        options = dict({"cache_timeout": 3600, "cache_plugin": "ansible.builtin.jsonfile"}, **options)
        return read(member, cache=True, cache_connection=str(tmp_path / "cache"), **options)

    return cached


def cache_files(tmp_path) -> list[t.Any]:
    return list((tmp_path / "cache").iterdir())


def conditional(member: FakeMember) -> list[bool]:
    """For each request that ``member`` got, whether it asked only for something new."""
    return ["if-none-match" in headers for _method, _path, _query, headers in member.requests]


def test_a_warm_cache_asks_nobody(member, cached, tmp_path):
    cold = cached(member, compose={"a": "xdp_gossip.name"})
    assert len(member.requests) == 1
    before = cache_files(tmp_path)[0].stat().st_mtime_ns
    warm = cached(member, compose={"a": "xdp_gossip.name"})
    assert len(member.requests) == 1
    assert cache_files(tmp_path)[0].stat().st_mtime_ns == before  # a hit makes nothing younger
    for name in names(cold):
        assert warm.hosts[name].vars == cold.hosts[name].vars


def test_a_cache_has_one_key(member, cached, tmp_path):
    cached(member)
    cached(member, states=["alive", "dead"], hostnames=["addr"], consistency="majority")
    assert len(cache_files(tmp_path)) == 1


def test_after_its_time_one_request_confirms_it(member, cached, clock):
    cold = cached(member)
    clock.ahead = 3601
    warm = cached(member)
    assert conditional(member) == [False, True]
    assert [dict(host.vars) for host in warm.hosts.values()] == [dict(host.vars) for host in cold.hosts.values()]


def test_what_is_confirmed_counts_for_as_long_again_and_no_longer(member, cached, clock):
    cached(member)
    for ahead, requests in ((3599, 1), (3601, 2), (7100, 2), (7202, 3)):
        clock.ahead = ahead
        cached(member)
        assert len(member.requests) == requests, ahead
    assert conditional(member) == [False, True, True]


def test_after_its_time_what_has_changed_comes_in(member, cached, clock):
    cached(member)
    member.nodes.pop()
    clock.ahead = 3601
    assert names(cached(member)) == ["host11", "host12"]
    assert names(cached(member)) == ["host11", "host12"] and conditional(member) == [False, True]


def test_heartbeats_alone_are_no_change(member, cached, clock):
    cached(member)
    for entry in member.nodes:
        entry.update(sequence=99, last_heard=0.1)
    clock.ahead = 3601
    assert cached(member).hosts["host11"].vars["xdp_gossip"]["sequence"] == 7  # as they were: so it is documented


def test_after_its_time_it_is_no_answer_when_nobody_answers(member, cached, clock, tmp_path):
    cached(member)
    text = cache_files(tmp_path)[0].read_text()
    clock.ahead = 3601
    member.misbehave = lambda handler: handler.error(503, "starting")
    with pytest.raises(AnsibleError):
        cached(member)
    assert cache_files(tmp_path)[0].read_text() == text


def test_a_cache_from_the_future_does_not_count(member, cached, clock):
    clock.ahead = 1000
    cached(member)
    clock.ahead = 0
    cached(member)
    assert len(member.requests) == 2


def test_zero_is_for_ever(member, cached, clock):
    cached(member, cache_timeout=0)
    clock.ahead = 400 * 86400
    cached(member, cache_timeout=0)
    assert len(member.requests) == 1


def test_a_member_that_says_unchanged_to_who_holds_nothing_has_not_answered(member, read, warnings):
    member.misbehave = lambda handler: handler.reply(304, b"")
    with pytest.raises(AnsibleError):
        read(member)
    assert "answered 304" in "".join(warnings)


def test_refreshing_bypasses_the_cache_and_renews_it(member, cached):
    inventory = cached(member)
    member.nodes.pop()
    assert len(names(cached(member))) == 3
    inventory.refresh_inventory()
    assert names(inventory) == ["host11", "host12"] and conditional(member) == [False, False]
    assert len(names(cached(member))) == 2 and len(member.requests) == 2


def test_flushing_bypasses_the_cache_and_renews_it(member, cached, tmp_path):
    """``--flush-cache`` makes Ansible read all sources with cache=False."""
    cached(member)
    member.nodes.pop()
    inventory = InventoryManager(loader=DataLoader(), sources=[str(tmp_path / "fleet.nodelist.yml")], cache=False)
    assert names(inventory) == ["host11", "host12"] and conditional(member) == [False, False]
    assert len(names(cached(member))) == 2 and len(member.requests) == 2


def test_a_cache_for_other_states_or_endpoints_does_not_count(member, cached):
    cached(member)
    cached(member, states=["alive", "suspect"])
    cached(member, states=["alive", "suspect"], endpoints=["http://127.0.0.1:%d" % free_port(), member.url])
    cached(member, states=["alive", "suspect"], consistency="majority")
    assert conditional(member) == [False] * 4


def test_a_failed_fetch_leaves_the_cache_alone(member, cached, tmp_path):
    inventory = cached(member)
    text = cache_files(tmp_path)[0].read_text()
    member.misbehave = lambda handler: handler.error(503, "starting")
    with pytest.raises(AnsibleError):
        inventory.refresh_inventory()
    assert cache_files(tmp_path)[0].read_text() == text


def test_what_is_left_out_is_told_from_the_cache_too(member, cached, warnings):
    member.nodes.append(node("127.0.0.1", "evil"))
    cached(member)
    told = list(warnings)
    warnings.clear()
    cached(member)
    assert warnings == told and len(told) == 1 and len(member.requests) == 1


# Filters


ZONES = {"host11": "a", "host12": "b", "host13": "c"}


@pytest.mark.parametrize(
    "filters, expected",
    [
        ([], "11 12 13"),
        ([{"exclude": "xdp_gossip.private_data == 'b'"}], "11 13"),
        ([{"include": "xdp_gossip.private_data in ['a', 'b']"}, {"exclude": True}], "11 12"),
        ([{"include": "ansible_host == '198.18.0.13'"}, {"exclude": "true"}], "13"),
        ([{"exclude": "xdp_gossip.name is match('host1[12]')"}, {"include": True}], "13"),
        ([{"include": False}], "11 12 13"),
    ],
)
def test_filters(member, read, filters, expected):
    for entry in member.nodes:
        entry["private_data"] = ZONES[entry["name"]]
    assert names(read(member, filters=filters)) == ["host" + last for last in expected.split()]


def test_filters_see_parsed_private_data(member, read):
    for entry in member.nodes:
        entry["private_data"] = json.dumps({"zone": ZONES[entry["name"]]})
    filters = [{"include": "xdp_gossip.data.zone == 'c'"}, {"exclude": True}]
    assert names(read(member, filters=filters, private_data_format="json")) == ["host13"]


def test_filters_come_before_names(member, read, warnings):
    """A node that is not wanted takes no name away."""
    member.nodes = [node("198.18.0.11", "twin"), node("198.18.0.12", "twin", version="0.0.1"), node("127.0.0.1", "all")]
    filters = [{"exclude": "xdp_gossip.version == '0.0.1'"}, {"exclude": "xdp_gossip.name == 'all'"}]
    assert names(read(member, filters=filters)) == ["twin"] and not warnings


def test_a_node_on_which_a_condition_fails_is_left_out(member, read, warnings):
    """Else it would slip past the exclusion by writing data on which that fails."""
    member.nodes[0]["private_data"] = '{"retired": true}'
    member.nodes[1]["private_data"] = "{"
    filters = [{"exclude": "(xdp_gossip.private_data or '{}') | from_json == {'retired': true}"}]
    assert names(read(member, filters=filters)) == ["host13"]
    assert len(warnings) == 1 and "left out: 198.18.0.12_8000: filters, entry 1, exclude" in warnings[0]
    with pytest.raises(AnsibleError):
        read(member, filters=filters, strict=True)


def test_an_undefined_variable_in_a_condition_is_no_answer(member, read, warnings):
    assert not names(read(member, filters=[{"exclude": "xdp_gossip.nosuch.field == 1"}]))
    assert len(warnings) == 3


@pytest.mark.parametrize("filters, said", [("a", ""), ([{"includes": "a"}], ""), ([{"include": "{{ a }}"}], "braces")])
def test_malformed_filters_are_refused(member, read, warnings, filters, said):
    with pytest.raises(AnsibleError):
        read(member, filters=filters)
    assert "filters" in "".join(warnings) and said in "".join(warnings)
    assert not member.requests


def test_extra_vars_in_filters_and_names(member, read, monkeypatch):
    monkeypatch.setattr(context, "CLIARGS", {"extra_vars": ["wanted=host12 tail=x"]})
    monkeypatch.setattr(load_extra_vars, "extra_vars", None, raising=False)  # 2.18 remembers those of the first call
    if hasattr(load_extra_vars, "cache_clear"):
        load_extra_vars.cache_clear()
    options = {"filters": [{"exclude": "xdp_gossip.name != wanted"}], "hostnames": ["xdp_gossip.name ~ '-' ~ tail"]}
    assert names(read(member, use_extra_vars=True, **options)) == ["host12-x"]


# Private data


@pytest.mark.parametrize("form, text", [("json", '{"zone": "a", "n": [1]}'), ("yaml", "zone: a\nn:\n- 1\n")])
def test_private_data_is_parsed_on_request(member, read, form, text):
    member.nodes[0]["private_data"] = text
    inventory = read(member, private_data_format=form, keyed_groups=[{"key": "xdp_gossip.data.zone", "prefix": "zone"}])
    said = inventory.hosts["host11"].vars["xdp_gossip"]
    assert said["data"] == {"zone": "a", "n": [1]} and said["private_data"] == text
    assert inventory.hosts["host12"].vars["xdp_gossip"]["data"] is None
    assert groups(inventory) == {"zone_a": ["host11"]}


def test_private_data_that_cannot_be_read_is_a_warning_or_an_error(member, read, warnings):
    member.nodes[0]["private_data"] = "{"
    inventory = read(member, private_data_format="json")
    assert inventory.hosts["host11"].vars["xdp_gossip"]["data"] is None
    assert len(warnings) == 1 and "private data of 198.18.0.11_8000" in warnings[0]
    with pytest.raises(AnsibleError):
        read(member, private_data_format="json", strict=True)


def test_thousands_of_complaints_are_told_in_short(member, read, warnings):
    member.nodes = [node("198.18.1.%d" % last, "h%d" % last, private_data="{") for last in range(1, 101)]
    assert len(names(read(member, private_data_format="json"))) == 100
    assert len(warnings) == 21 and "80 more" in warnings[-1]


# Several members


@pytest.fixture(name="fleet")
def fixture_fleet():
    with FakeMember() as first, FakeMember() as second, FakeMember() as third:
        for member in (first, second, third):
            member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12, 13)]
        yield [first, second, third]


def urls(fleet: list[FakeMember]) -> list[str]:
    return [member.url for member in fleet]


def test_one_member_that_is_cut_off_does_not_count(fleet, read):
    for entry in fleet[0].nodes[1:]:
        entry["state"] = "dead"
    assert names(read(None, endpoints=urls(fleet))) == ["host11"]
    assert names(read(None, endpoints=urls(fleet), consistency="majority")) == ["host11", "host12", "host13"]
    assert all(len(member.requests) <= 2 for member in fleet)


def test_one_member_that_lags_behind_does_not_count(fleet, read):
    for member in fleet[:2]:
        member.nodes[2]["state"] = "dead"
    assert names(read(None, endpoints=urls(fleet), consistency="majority")) == ["host11", "host12"]
    dead = read(None, endpoints=urls(fleet), consistency="majority", states=["dead"])
    assert names(dead) == ["host13"]


def test_too_few_members_are_an_error_that_names_each(fleet, read, warnings):
    dead = ["http://127.0.0.1:%d" % free_port() for _each in range(2)]
    with pytest.raises(AnsibleError):
        read(None, endpoints=[dead[0], fleet[0].url, dead[1]], consistency="majority")
    text = "".join(warnings)
    assert "1 of 3 endpoints answered" in text
    assert all(url + ": Connection refused" in text for url in dead)
    assert len(names(read(None, endpoints=[dead[0], *urls(fleet[:2])], consistency="majority"))) == 3


def test_members_of_two_clusters_are_an_error(fleet, read, warnings):
    fleet[1].misbehave = lambda handler: handler.reply(200, {"nodes": [], "cluster": "other"})
    with pytest.raises(AnsibleError):
        read(None, endpoints=urls(fleet), consistency="majority")
    assert "members of one cluster" in "".join(warnings)


def test_each_member_is_asked_with_its_own_entity_tag(fleet, cached, clock):
    fleet[0].nodes[0]["local"] = fleet[1].nodes[1]["local"] = True  # so that the tags differ
    cold = cached(None, endpoints=urls(fleet), consistency="majority")
    assert names(cached(None, endpoints=urls(fleet), consistency="majority")) == names(cold)
    clock.ahead = 3601
    fleet[2].nodes[2]["state"] = "suspect"
    assert names(cached(None, endpoints=urls(fleet), consistency="majority")) == names(cold)
    assert [conditional(member) for member in fleet] == [[False, True]] * 3
    tags = [member.requests[1][3]["if-none-match"] for member in fleet]
    assert len(set(tags)) == 3


# Where options come from


@pytest.mark.parametrize(
    "variable, value, expected",
    [
        ("XDP_GOSSIP_STATES", "suspect,dead", ["host12", "host13"]),
        ("XDP_GOSSIP_HOSTNAMES", "nosuchvariable,addr", ["198.18.0.11"]),
        ("XDP_GOSSIP_HOSTNAMES", "xdp_gossip.name ~ '-x'", ["host11-x"]),
        ("XDP_GOSSIP_CONSISTENCY", "majority", None),
        ("XDP_GOSSIP_PRIVATE_DATA_FORMAT", "json", ["host11"]),
    ],
)
def test_options_from_the_environment(member, read, monkeypatch, warnings, variable, value, expected):
    for entry, state in zip(member.nodes, ("alive", "suspect", "dead")):
        entry.update(state=state, private_data="[1]")
    monkeypatch.setenv(variable, value)
    if expected is None:
        with pytest.raises(AnsibleError):
            read(member, endpoints=[member.url, "http://127.0.0.1:%d" % free_port()])
        assert "1 of 2 endpoints" in "".join(warnings)
        return
    inventory = read(member)
    assert names(inventory) == expected
    if value == "json":
        assert inventory.hosts["host11"].vars["xdp_gossip"]["data"] == [1]


def test_every_option_that_is_no_structure_can_come_from_three_places():
    plugin = inventory_loader.get("xdp_gossip.fleet.nodelist")
    mine = ("states", "hostnames", "private_data_format", "consistency")
    connection = (
        "endpoints",
        "token",
        "token_file",
        "ca_path",
        "client_cert",
        "client_key",
        "validate_certs",
        "timeout",
        "retries",
    )
    for option in mine + connection:
        defined = plugin.option_definitions[option]
        assert {"name": "XDP_GOSSIP_" + option.upper()} in defined["env"], option
        assert {"section": "xdp_gossip", "key": option} in defined["ini"], option
        assert {"name": "xdp_gossip_" + option} in defined["vars"], option


def test_endpoints_may_be_templates_of_the_operators(member, read, monkeypatch):
    monkeypatch.setenv("FLEET", "http://127.0.0.1:%d %s/" % (free_port(), member.url))
    template = "{{ lookup('ansible.builtin.env', 'FLEET').split() }}"
    assert len(names(read(None, endpoints=[template]))) == 3


def test_no_template_is_made_of_an_answer(member, read, tmp_path):
    """Neither by an expression for names nor by one for variables."""
    member.nodes[0]["name"] = "{{ lookup('ansible.builtin.pipe', 'touch %s/pwned') }}" % tmp_path
    read(member, hostnames=["xdp_gossip.name", "addr"], compose={"a": "xdp_gossip.name"})
    assert not (tmp_path / "pwned").exists()


# Keyed groups


@pytest.mark.parametrize(
    "entry, expected",
    [
        ({"key": "xdp_gossip.private_data", "default_value": "none"}, {"xdp_gossip_a", "xdp_gossip_none"}),
        ({"key": "xdp_gossip.private_data", "prefix": "z", "separator": "-"}, {"z_a"}),
        ({"key": "{'z': xdp_gossip.private_data}", "trailing_separator": False}, {"xdp_gossip_z_a", "xdp_gossip_z"}),
        ({"key": "{'z': xdp_gossip.private_data}"}, {"xdp_gossip_z_a", "xdp_gossip_z_"}),
        (
            {"key": "[xdp_gossip.private_data, 'x']", "default_value": "y"},
            {"xdp_gossip_a", "xdp_gossip_x", "xdp_gossip_y"},
        ),
    ],
)
@pytest.mark.parametrize("leading", [True, False])
def test_keyed_groups_have_their_prefix_in_every_form(member, read, entry, expected, leading):
    member.nodes = [node("198.18.0.11", "one", private_data="a"), node("198.18.0.12", "two")]
    assert set(groups(read(member, keyed_groups=[entry], leading_separator=leading))) == expected


def test_variables_reach_a_play(member, read):
    inventory = read(member, compose={"upper": "xdp_gossip.name | upper"})
    manager = VariableManager(loader=DataLoader(), inventory=inventory)
    variables = manager.get_vars(host=inventory.get_host("host12"))
    assert (variables["ansible_host"], variables["upper"]) == ("198.18.0.12", "HOST12")
