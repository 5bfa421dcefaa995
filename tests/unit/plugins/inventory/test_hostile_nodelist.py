# SPDX-License-Identifier: MIT
"""A fleet with a hostile member: what its NodeList entry may not do to the control machine or to other hosts.

Every attack runs twice: as an answer of the member, and through a cache file that somebody wrote.
"""

from __future__ import annotations

import json
import typing as t

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.utils.display import Display
from ansible.vars.manager import VariableManager
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _nodes
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node

try:
    from ansible.template import is_trusted_as_template, trust_as_template
except ImportError:  # ansible-core 2.18 takes every string for a template that is not wrapped
    from ansible.utils.unsafe_proxy import AnsibleUnsafe

    def trust_as_template(text):
        return text

    def is_trusted_as_template(text):
        return not isinstance(text, AnsibleUnsafe)


EARLIER = """
db1 ansible_host=198.18.0.200
bare

[webservers]
web1 ansible_host=198.18.0.201

[webservers:vars]
secret=of-the-web-servers
"""

OPTIONS = {
    "keyed_groups": [
        {"key": "xdp_gossip.name"}, {"key": "xdp_gossip.private_data"}, {"key": "xdp_gossip.state", "prefix": "st"},
    ],
    "groups": {"chosen": "xdp_gossip.name == 'honest'"},
    "compose": {"composed": "xdp_gossip.private_data", "joined": "'x' ~ xdp_gossip.private_data ~ xdp_gossip.name"},
}


class World:
    """A directory, an honest node, a hostile one, and what comes of it."""

    def __init__(self, directory, member: FakeMember, warnings: list[str], through_cache: bool) -> None:
        self.directory = directory
        self.member = member
        self.warnings = warnings
        self.marker = directory / "pwned"
        self._through_cache = through_cache

    def template(self) -> str:
        return "{{ lookup('ansible.builtin.pipe', 'touch %s') }}" % self.marker

    def read(self, *hostile: t.Any, **options: t.Any) -> InventoryManager:
        self.member.nodes = [node("198.18.0.10", "honest", private_data="p")]
        config = dict(
            OPTIONS, plugin="xdp_gossip.fleet.nodelist", endpoints=[self.member.url], cache=True, timeout=5,
            cache_plugin="ansible.builtin.jsonfile", cache_connection=str(self.directory / "cache"), **options
        )
        path = self.directory / "nodelist.yml"
        path.write_text(yaml.safe_dump(config))
        (self.directory / "earlier.ini").write_text(EARLIER)
        sources = [str(self.directory / "earlier.ini"), str(path)]
        if self._through_cache:
            InventoryManager(loader=DataLoader(), sources=sources)
            self.warnings.clear()
            self._poison(list(hostile))
        self.member.nodes.extend(hostile)
        asked = len(self.member.requests)
        inventory = InventoryManager(loader=DataLoader(), sources=sources)
        from_cache = self._through_cache and not [line for line in self.warnings if "cache cannot be read" in line]
        assert len(self.member.requests) == asked + (0 if from_cache else 1)
        return inventory

    def _poison(self, hostile: list[t.Any]) -> None:
        """Write the hostile nodes into the cache file, raw, beside what is there."""

        def add(entry: dict[str, t.Any]) -> None:
            body = json.loads(entry["answers"][0]["body"])
            body["nodes"].extend(hostile)
            entry["answers"][0]["body"] = json.dumps(body)

        self.rewrite_cache(add)

    def rewrite_cache(self, change: t.Callable[[dict[str, t.Any]], t.Any]) -> None:
        """Let ``change`` have its way with what the cache file holds."""
        (cache,) = (self.directory / "cache").iterdir()
        content = json.loads(cache.read_text())
        if "__payload__" in content:  # from 2.19 on: JSON inside JSON
            inner = json.loads(content["__payload__"])
            change(inner)
            content["__payload__"] = json.dumps(inner)
        else:
            change(content)
        cache.write_text(json.dumps(content))

    def check(self, inventory: InventoryManager, extra: dict[str, str] | None = None) -> None:
        """Nothing outside the two permitted variables of the permitted hosts has changed, and nothing ran.

        ``extra`` gives the hosts that may be there beside the honest one, with their addresses.
        """
        mine = dict({"honest": "198.18.0.10"}, **(extra or {}))
        assert {str(name) for name in inventory.hosts} == set(mine) | {"db1", "bare", "web1"}
        manager = VariableManager(loader=DataLoader(), inventory=inventory)
        for name in inventory.hosts:
            own = set(inventory.hosts[name].vars) - {"inventory_file", "inventory_dir"}
            if name in mine:
                assert own == {"ansible_host", "xdp_gossip", "composed", "joined"}
                assert set(inventory.hosts[name].vars["xdp_gossip"]) == set(node("198.18.0.1"))
                assert inventory.hosts[name].vars["ansible_host"] == mine[name]
            else:
                assert own <= {"ansible_host"}
            self._render(manager.get_vars(host=inventory.hosts[name]))
        assert inventory.hosts["db1"].vars["ansible_host"] == "198.18.0.200"
        assert inventory.hosts["web1"].vars["ansible_host"] == "198.18.0.201"
        for name, group in inventory.groups.items():
            assert not group.vars or name == "webservers"
            if name not in ("all", "ungrouped", "webservers", "chosen"):
                assert name.startswith(("xdp_gossip_", "st_")) and name.replace("_", "a").isalnum()
        assert [str(host) for host in inventory.groups["webservers"].hosts] == ["web1"]
        assert not [host for host in inventory.get_hosts("localhost") if str(host) in inventory.hosts]
        assert not self.marker.exists()
        for line in self.warnings:
            assert line.isprintable() and len(line) < 1000

    def _render(self, variables: dict[str, t.Any]) -> None:
        """What a play would do with the variables: show them, join them, hand them on."""
        templar = Templar(loader=DataLoader(), variables=variables)
        for text in (
            "{{ xdp_gossip | default() }}", "{{ xdp_gossip.private_data | default() }}-{{ composed | default() }}",
            "{{ [joined | default('')] }}", "{{ ansible_host | default('') }}",
            "{{ (xdp_gossip | default({})).values() | list }}",
        ):
            templar.template(trust_as_template(text))


@pytest.fixture(name="world", params=["answer", "cache"])
def fixture_world(tmp_path, monkeypatch, request):
    warnings: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda self, msg, *args, **kwargs: warnings.append(str(msg)))
    monkeypatch.setattr(
        Display, "error_as_warning", lambda self, msg, exception, **kw: warnings.append(str(exception)), raising=False
    )
    monkeypatch.setattr(constants, "INVENTORY_ANY_UNPARSED_IS_FAILED", True)
    with FakeMember() as member:
        yield World(tmp_path, member, warnings, request.param == "cache")


def test_the_marker_would_be_seen(world):
    """The checks above can fail: the same template, trusted, does run."""
    Templar(loader=DataLoader(), variables={}).template(trust_as_template(world.template()))
    assert world.marker.exists()


@pytest.mark.parametrize("field", ["private_data", "version", "protocol", "digest"])
@pytest.mark.parametrize("form", ["%s", "{%% set x = %s %%}", "{{ '%s' }}", "{{ [%s] }}"])
def test_a_value_is_never_a_template(world, field, form):
    inner = world.template()
    text = form % (inner[2:-2] if form != "%s" else inner)
    limit = {"private_data": 4096, "version": 255, "protocol": 64, "digest": 64}[field]
    inventory = world.read(node("198.18.0.66", "evil", **{field: text}))
    world.check(inventory, {"evil": "198.18.0.66"} if len(text) <= limit else {})
    if len(text) <= limit:
        assert inventory.hosts["evil"].vars["xdp_gossip"][field] == text


@pytest.mark.parametrize("field", ["name", "private_data", "version", "protocol", "addr", "state"])
def test_a_cache_file_cannot_make_a_value_trusted(world, field):
    """From 2.19 on, a cache file keeps the mark that makes a string a template."""
    text = world.template() if field == "private_data" else node("198.18.0.66", "evil")[field]
    trusted = {"value": text, "tags": [{"__ansible_type": "TrustedAsTemplate"}], "__ansible_type": "_AnsibleTaggedStr"}
    inventory = world.read(dict(node("198.18.0.66", "evil"), **{field: trusted}))
    there = "evil" in inventory.hosts
    world.check(inventory, {"evil": "198.18.0.66"} if there else {})
    if there:
        assert not is_trusted_as_template(inventory.hosts["evil"].vars["xdp_gossip"][field])


@pytest.mark.parametrize("expression", ["xdp_gossip.private_data | upper | lower", "[xdp_gossip.private_data]",
                                        "{'a': xdp_gossip.private_data}", "xdp_gossip.private_data | from_json"])
def test_what_is_composed_of_a_value_is_no_template_either(world, expression):
    data = json.dumps({"deep": [world.template()]})
    world.member.nodes = []
    inventory = world.read(node("198.18.0.66", "evil", private_data=data))
    world.check(inventory, {"evil": "198.18.0.66"})
    config = yaml.safe_load((world.directory / "nodelist.yml").read_text())
    config.update(compose={"composed": expression}, cache=False)
    (world.directory / "nodelist.yml").write_text(yaml.safe_dump(config))
    inventory = InventoryManager(loader=DataLoader(), sources=[str(world.directory / "nodelist.yml")])
    variables = VariableManager(loader=DataLoader(), inventory=inventory).get_vars(host=inventory.get_host("evil"))
    templar = Templar(loader=DataLoader(), variables=variables)
    assert "touch" in str(templar.template(trust_as_template("{{ composed }}")))
    assert not world.marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "all", "ALL", "ungrouped", "localhost", "LocalHost", "localhost.localdomain", "localhost4", "ip6-localhost",
        "127.0.0.1", "::1", "198.18.0.201", "fd00::1", "webservers", "WebServers", "chosen", "xdp_gossip_alive",
        "st_alive", "a b", "-oProxyCommand=id", "a" * 10000, "web1\n", "a\x00b", "a,b", "web[1:3]", "!web1", "~.*",
        "a:b", "a/b", "../a",
        ".hidden", "ünïcode", "{{ 1 }}", "\x1b[2Jx", "*", "web1", "db1", "DB1" * 90, "bare",
    ],
)
def test_a_name_never_means_something_else(world, name):
    world.check(world.read(node("198.18.0.66", name)))
    assert len(world.warnings) == 1 and "left out" in world.warnings[0]


def test_a_template_as_a_name(world):
    world.check(world.read(node("198.18.0.66", world.template())))


@pytest.mark.parametrize("name", ["all", "localhost", "webservers", "db1", "a b"])
def test_a_refused_name_is_an_error_under_strict(world, name):
    with pytest.raises(AnsibleError):
        world.read(node("198.18.0.66", name), strict=True)
    assert "left out" in "".join(world.warnings)


def test_a_node_at_the_address_of_a_known_host_is_that_host(world):
    inventory = world.read(node("198.18.0.200", "db1"))
    assert inventory.hosts["db1"].vars["ansible_host"] == "198.18.0.200"
    assert not world.warnings


def test_nobody_gets_a_name_that_two_claim(world):
    world.check(world.read(node("198.18.0.66", "twin"), node("198.18.0.67", "TWIN")))
    assert len(world.warnings) == 2
    world.warnings.clear()


def test_an_honest_node_cannot_be_replaced_by_its_double(world):
    inventory = world.read(node("198.18.0.9", "honest"), node("198.18.0.66", "other"))
    assert "honest" not in inventory.hosts and "other" in inventory.hosts
    assert len(world.warnings) == 2


def test_the_one_that_is_alive_keeps_a_name_that_it_had_at_another_address(world):
    earlier, now = node("198.18.0.66", "moved", state="suspect"), node("198.18.0.67", "moved")
    inventory = world.read(earlier, now, states=["alive", "suspect"])
    assert inventory.hosts["moved"].vars["ansible_host"] == "198.18.0.67"


def test_one_address_listed_twice(world):
    inventory = world.read(node("198.18.0.10", "again"))
    world.check(inventory)


@pytest.mark.parametrize(
    "key",
    [
        "ansible_ssh_common_args", "ansible_connection", "ansible_python_interpreter", "vars", "hosts", "children",
        "__class__", "__ansible_unsafe", "ansible_host", "inventory_hostname", "{{ x }}",
    ],
)
def test_a_key_is_never_a_variable(world, key):
    hostile = node("198.18.0.66", "evil", **{key: "-o ProxyCommand='touch %s'" % world.marker})
    inventory = world.read(hostile)
    # 2.18 reads an object with __ansible_unsafe in a cache file as one string: no node then.
    world.check(inventory, {"evil": "198.18.0.66"} if "evil" in inventory.hosts or key != "__ansible_unsafe" else {})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.99.1.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "ff02::1",
        "255.255.255.255", "169.254.1.1", "fe80::1", "fe80::1%eth0", "fd00::1%$(touch pwned)", "fd00::1%{{ 1 }}",
        "localhost", "db1", "",
        "-oProxyCommand=id", "0177.0.0.1", "2130706433", 2130706433, "198.18.0.66\n", "198.18.0.66 ", "198.18.0.066",
        "198.18.0.66/32", None, ["198.18.0.66"], {"a": 1}, "1" * 10000, True,
    ],
)
def test_an_address_leads_to_one_other_machine(world, address):
    world.check(world.read(node(address, "evil")))
    assert len(world.warnings) == 1


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", {"a": 1}), ("name", ["all"]), ("name", 7), ("name", {"__ansible_unsafe": "all"}),
        ("name", {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n00"}),
        ("name", {"__ansible_type": "TrustedAsTemplate"}),
        ("private_data", {"a": "b"}), ("private_data", "x" * 4097), ("private_data", "\ud800"), ("name", "\udcff"),
        ("port", 0), ("port", -1), ("port", 65536), ("port", "22"), ("port", True), ("port", None), ("port", 1.5),
        ("state", ["alive"]), ("incarnation", -1), ("incarnation", 2**64), ("sequence", "1"), ("last_heard", "now"),
        ("last_heard", -1), ("last_heard", True), ("local", "yes"), ("version", ["1"]), ("version", "1" * 256),
    ],
)
def test_a_field_of_another_kind_is_no_node(world, field, value):
    world.check(world.read(dict(node("198.18.0.66", "evil"), **{field: value})))
    assert len([line for line in world.warnings if "left out" in line]) == 1


@pytest.mark.parametrize("entry", [None, 7, "node", [], [["addr", "198.18.0.66"]], {}])
def test_an_entry_that_is_no_node(world, entry):
    world.check(world.read(entry))
    assert len(world.warnings) == 1


def test_a_group_is_only_joined_with_a_prefix(world):
    inventory = world.read(node("198.18.0.66", "evil", private_data="webservers"))
    world.check(inventory, {"evil": "198.18.0.66"})
    assert "xdp_gossip_webservers" in inventory.groups
    variables = VariableManager(loader=DataLoader(), inventory=inventory).get_vars(host=inventory.hosts["evil"])
    assert "secret" not in variables


def test_too_many_nodes(world, monkeypatch):
    monkeypatch.setattr(_nodes, "MAX_NODES", 50)
    with pytest.raises(AnsibleError):
        world.read(*[node("198.18.1.%d" % last, "n%d" % last) for last in range(1, 101)])
    assert "at most 50" in "".join(world.warnings)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"nodes": ' + b"[" * 90000, id="nested"), b'{"nodes": {}}', b"{}", b"null",
        pytest.param(b'{"nodes": [' + b"[]," * 6000000 + b"1]}", id="bomb"),
    ],
)
def test_a_whole_answer_that_is_hostile_is_an_error(world, body):
    world.member.misbehave = lambda handler: handler.reply(200, body)
    config = {"plugin": "xdp_gossip.fleet.nodelist", "endpoints": [world.member.url], "timeout": 20, "retries": 0}
    (world.directory / "nodelist.yml").write_text(yaml.safe_dump(config))
    with pytest.raises(AnsibleError):
        InventoryManager(loader=DataLoader(), sources=[str(world.directory / "nodelist.yml")])
