# SPDX-License-Identifier: MIT
"""A fleet with a hostile member: what its NodeList entry may not do to the control machine or to other hosts.

Every attack runs three times: as an answer of the member, through a cache file that somebody wrote, and as what most of
three members answer. docs/inventory.md says which guard stands against which attack.
"""

from __future__ import annotations

import contextlib
import json
import time
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
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _client, _nodes
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node

try:
    from ansible.template import is_trusted_as_template, trust_as_template

    KEEPS_TRUST = True  # a cache file can
except ImportError:  # ansible-core 2.18 takes every string for a template that is not wrapped
    from ansible.utils.unsafe_proxy import AnsibleUnsafe

    KEEPS_TRUST = False

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
        {"key": "xdp_gossip.name"},
        {"key": "xdp_gossip.private_data"},
        {"key": "xdp_gossip.state", "prefix": "st"},
    ],
    "groups": {"chosen": "xdp_gossip.name == 'honest'"},
    "compose": {"composed": "xdp_gossip.private_data", "joined": "'x' ~ xdp_gossip.private_data ~ xdp_gossip.name"},
}


class World:
    """A directory, an honest node, a hostile one, and what comes of it."""

    def __init__(self, directory, members: list[FakeMember], warnings: list[str], way: str) -> None:
        self.directory = directory
        self.member = members[0]
        self.members = members
        self.warnings = warnings
        self.marker = directory / "pwned"
        self._through_cache = way == "cache"

    def template(self) -> str:
        return "{{ lookup('ansible.builtin.pipe', 'touch %s') }}" % self.marker

    def read(self, *hostile: t.Any, from_cache: bool | None = None, **options: t.Any) -> InventoryManager:
        self.member.nodes = [node("198.18.0.10", "honest", private_data="p")]
        for other in self.members[1:]:
            other.nodes = self.member.nodes  # the same list: gossip has told everybody
        config = dict(OPTIONS, plugin="xdp_gossip.fleet.nodelist", endpoints=[each.url for each in self.members])
        config.update(consistency="majority" if len(self.members) > 1 else "one", timeout=5)
        config.update(options)
        config.update(cache=True, cache_plugin="ansible.builtin.jsonfile")
        config["cache_connection"] = str(self.directory / "cache")
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
        if from_cache is None:
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

    def check(
        self, inventory: InventoryManager, extra: dict[str, str] | None = None, fields: t.Sequence[str] = ()
    ) -> None:
        """Nothing outside the two permitted variables of the permitted hosts has changed, and nothing ran.

        ``extra`` gives the hosts that may be there beside the honest one, with their addresses, ``fields`` what
        their dictionaries may hold beside what every node has.
        """
        mine = dict({"honest": "198.18.0.10"}, **(extra or {}))
        assert {str(name) for name in inventory.hosts} == set(mine) | {"db1", "bare", "web1"}
        manager = VariableManager(loader=DataLoader(), inventory=inventory)
        for name in inventory.hosts:
            own = set(inventory.hosts[name].vars) - {"inventory_file", "inventory_dir"}
            if name in mine:
                assert own == {"ansible_host", "xdp_gossip", "composed", "joined"}
                assert set(inventory.hosts[name].vars["xdp_gossip"]) == set(node("198.18.0.1")) | set(fields)
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
            "{{ xdp_gossip | default() }}",
            "{{ xdp_gossip.private_data | default() }}-{{ composed | default() }}",
            "{{ [joined | default('')] }}",
            "{{ ansible_host | default('') }}",
            "{{ (xdp_gossip | default({})).values() | list }}",
            "{{ (xdp_gossip | default({})).data | default() }}",
            "{{ (xdp_gossip | default({})).data | default({}) | string }}",
        ):
            templar.template(trust_as_template(text))


@pytest.fixture(name="world", params=["answer", "cache", "majority"])
def fixture_world(tmp_path, monkeypatch, request):
    warnings: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda self, msg, *args, **kwargs: warnings.append(str(msg)))
    monkeypatch.setattr(
        Display, "error_as_warning", lambda self, msg, exception, **kw: warnings.append(str(exception)), raising=False
    )
    monkeypatch.setattr(constants, "INVENTORY_ANY_UNPARSED_IS_FAILED", True)
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(FakeMember()) for _each in range(3 if request.param == "majority" else 1)]
        yield World(tmp_path, members, warnings, request.param)


def test_the_marker_would_be_seen(world):
    """The checks above can fail: the same template, trusted, does run."""
    Templar(loader=DataLoader(), variables={}).template(trust_as_template(world.template()))
    assert world.marker.exists()


@pytest.mark.parametrize("field", ["private_data", "version", "protocol", "zone", "digest"])
@pytest.mark.parametrize("form", ["%s", "{%% set x = %s %%}", "{{ '%s' }}", "{{ [%s] }}"])
def test_a_value_is_never_a_template(world, field, form):
    inner = world.template()
    text = form % (inner[2:-2] if form != "%s" else inner)
    limit = {"private_data": 4096, "version": 255, "protocol": 64, "zone": 255, "digest": 64}[field]
    inventory = world.read(node("198.18.0.66", "evil", **{field: text}))
    world.check(inventory, {"evil": "198.18.0.66"} if len(text) <= limit else {})
    if len(text) <= limit:
        assert inventory.hosts["evil"].vars["xdp_gossip"][field] == text


@pytest.mark.parametrize("field", ["name", "private_data", "version", "protocol", "zone", "addr", "state"])
def test_a_cache_file_cannot_make_a_value_trusted(world, field):
    """From 2.19 on, a cache file keeps the mark that makes a string a template."""
    text = world.template() if field == "private_data" else node("198.18.0.66", "evil")[field]
    trusted = {"value": text, "tags": [{"__ansible_type": "TrustedAsTemplate"}], "__ansible_type": "_AnsibleTaggedStr"}
    inventory = world.read(dict(node("198.18.0.66", "evil"), **{field: trusted}))
    there = "evil" in inventory.hosts
    world.check(inventory, {"evil": "198.18.0.66"} if there else {})
    if there:
        assert not is_trusted_as_template(inventory.hosts["evil"].vars["xdp_gossip"][field])


@pytest.mark.parametrize(
    "expression",
    [
        "xdp_gossip.private_data | upper | lower",
        "[xdp_gossip.private_data]",
        "{'a': xdp_gossip.private_data}",
        "xdp_gossip.private_data | from_json",
    ],
)
def test_what_is_composed_of_a_value_is_no_template_either(world, expression):
    data = json.dumps({"deep": [world.template()]})
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
        "all",
        "ALL",
        "ungrouped",
        "localhost",
        "LocalHost",
        "localhost.localdomain",
        "localhost4",
        "ip6-localhost",
        "127.0.0.1",
        "::1",
        "198.18.0.201",
        "fd00::1",
        "webservers",
        "WebServers",
        "chosen",
        "xdp_gossip_alive",
        "st_alive",
        "web1",
        "db1",
        "bare",
    ],
)
def test_a_name_never_means_something_else(world, name):
    world.check(world.read(node("198.18.0.66", name)))
    assert len(world.warnings) == 1 and "left out" in world.warnings[0]


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "-oProxyCommand=id",
        "x" * 254,
        "web1\n",
        "a\x00b",
        "a,b",
        "web[1:3]",
        "!web1",
        "~.*",
        "a:b",
        "a/b",
        "../a",
        ".hidden",
        "ünïcode",
        "{{ 1 }}",
        "\x1b[2Jx",
        "*",
    ],
)
def test_a_malformed_name_gives_way_to_the_next_preference(world, name):
    """It means nothing to Ansible, so the node is there under its address; nothing has the malformed name."""
    world.check(world.read(node("198.18.0.66", name)), {"198.18.0.66_8000": "198.18.0.66"})
    assert len(world.warnings) == 1 and "it is called 198.18.0.66_8000" in world.warnings[0]


@pytest.mark.parametrize("name", ["a" * 10000, "DB1" * 90])
def test_a_name_that_is_too_long_is_no_node(world, name):
    world.check(world.read(node("198.18.0.66", name)))
    assert len(world.warnings) == 1 and "left out" in world.warnings[0]


def test_a_template_as_a_name(world):
    world.check(world.read(node("198.18.0.66", world.template())), {"198.18.0.66_8000": "198.18.0.66"})


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
        "ansible_ssh_common_args",
        "ansible_connection",
        "ansible_python_interpreter",
        "vars",
        "hosts",
        "children",
        "__class__",
        "__ansible_unsafe",
        "ansible_host",
        "inventory_hostname",
        "{{ x }}",
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
        "127.0.0.1",
        "127.99.1.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1%$(touch pwned)",
        "fd00::1%{{ 1 }}",
        "localhost",
        "db1",
        "",
        "-oProxyCommand=id",
        "0177.0.0.1",
        "2130706433",
        2130706433,
        "198.18.0.66\n",
        "198.18.0.66 ",
        "198.18.0.066",
        "198.18.0.66/32",
        None,
        ["198.18.0.66"],
        {"a": 1},
        "1" * 10000,
        True,
    ],
)
def test_an_address_leads_to_one_other_machine(world, address):
    world.check(world.read(node(address, "evil")))
    assert len(world.warnings) == 1


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", {"a": 1}),
        ("name", ["all"]),
        ("name", 7),
        ("name", {"__ansible_unsafe": "all"}),
        ("name", {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n00"}),
        ("name", {"__ansible_type": "TrustedAsTemplate"}),
        ("private_data", {"a": "b"}),
        ("private_data", "x" * 4097),
        ("private_data", "\ud800"),
        ("name", "\udcff"),
        ("port", 0),
        ("port", -1),
        ("port", 65536),
        ("port", "22"),
        ("port", True),
        ("port", None),
        ("port", 1.5),
        ("state", ["alive"]),
        ("incarnation", -1),
        ("incarnation", 2**32),
        ("sequence", "1"),
        ("last_heard", "now"),
        ("last_heard", -1),
        ("last_heard", True),
        ("local", "yes"),
        ("version", ["1"]),
        ("version", "1" * 256),
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


# Names of groups


@pytest.mark.parametrize(
    "text", ["{{ lookup('ansible.builtin.pipe', 'touch %s') }}", "all", "webservers:vars", "a b", "x" * 4096]
)
def test_a_group_label_is_never_more_than_a_label(world, text):
    text = text.replace("%s", str(world.marker))
    keyed = [
        {"key": "xdp_gossip.data.label"},
        {"key": "xdp_gossip.private_data"},
        {"key": "[xdp_gossip.data.label]"},
        {"key": "{xdp_gossip.data.label: xdp_gossip.data.label}", "default_value": "x"},
    ]
    data = json.dumps({"label": text})[:4096]
    hostile = node("198.18.0.66", "evil", private_data=data if len(text) < 4000 else '{"label": "%s"}' % ("x" * 4000))
    inventory = world.read(
        hostile, node("198.18.0.67", "plain", private_data=text), private_data_format="json", keyed_groups=keyed
    )
    world.check(inventory, {"evil": "198.18.0.66", "plain": "198.18.0.67"}, ["data"])
    assert [name for name in inventory.groups if name.startswith("xdp_gossip_")]


# Parsed private data


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("shape", ['{"a": %s}', "[[%s]]", '{"a": {"b": [{"c": %s}]}}', "%s", "{%s: 1}", "[{%s: [1]}]"])
def test_parsed_private_data_is_never_a_template(world, form, shape):
    text = shape % json.dumps(world.template())
    composed = {"composed": "xdp_gossip.data", "joined": "'x' ~ (xdp_gossip.data | string)"}
    inventory = world.read(
        node("198.18.0.66", "evil", private_data=text), private_data_format=form, compose=composed, keyed_groups=[]
    )
    world.warnings[:] = [line for line in world.warnings if "private data of 198.18.0.10" not in line]  # "p" is no JSON
    world.check(inventory, {"evil": "198.18.0.66"}, ["data"])
    assert inventory.hosts["evil"].vars["xdp_gossip"]["data"] == json.loads(text) and not world.warnings


@pytest.mark.parametrize(
    "form, text",
    [
        ("yaml", "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\n"),
        ("yaml", "!!python/object/apply:os.system ['touch %s']"),
        ("yaml", "a: !!python/object/new:subprocess.Popen [['touch', '%s']]"),
        ("yaml", "a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  00\n"),
        ("yaml", "a: !unsafe '{{ 1 }}'"),
        ("yaml", "a: !!str 5"),
        ("yaml", "- " * 2000),
        ("yaml", "[" * 4000),
        ("yaml", "{a: " * 1000),
        ("yaml", "a: 1\n---\nb: 2"),
        ("yaml", "1: a"),
        ("yaml", "a: .inf"),
        ("yaml", "a: " + "9" * 4000),
        ("yaml", "[a]: b"),
        ("json", "[" * 4000),
        ("json", "[" * 20 + "]" * 20),
        ("json", "9" * 4000),
        ("json", "[NaN]"),
        ("json", '"\\ud800"'),
        ("json", '{"\\ud800": 1}'),
        ("json", "{"),
        ("json", "zone: a"),
        ("json", '{"__ansible_unsafe": "x"}'),
        ("json", '{"a": [{"__ansible_vault": "x"}]}'),
        ("json", '{"__ansible_type": "TrustedAsTemplate"}'),
        ("json", '{"__class__": {"__init__": 1}}'),
        ("yaml", "__class__: {__globals__: 1}"),
    ],
)
def test_private_data_that_is_an_attack_is_no_data(world, form, text):
    text = text.replace("%s", str(world.marker))
    inventory = world.read(node("198.18.0.66", "evil", private_data=text), private_data_format=form)
    world.check(inventory, {"evil": "198.18.0.66"}, ["data"])
    assert inventory.hosts["evil"].vars["xdp_gossip"]["data"] is None
    assert [line for line in world.warnings if "private data of 198.18.0.66_8000" in line]


# Filters and names


@pytest.mark.parametrize(
    "condition",
    [
        "xdp_gossip.private_data == 'retired'",
        "'x' in [xdp_gossip.private_data]",
        "xdp_gossip.private_data | length > 5000",
    ],
)
def test_a_condition_is_never_a_template_of_a_value(world, condition):
    world.check(
        world.read(node("198.18.0.66", "evil", private_data=world.template()), filters=[{"exclude": condition}]),
        {"evil": "198.18.0.66"},
    )


@pytest.mark.parametrize("data", ["{", '"\\ud800"', "[]", "7", '{"retired": {}}', "{{ x }}"])
def test_no_node_slips_past_an_exclusion_by_making_it_fail(world, data):
    rule = "(xdp_gossip.private_data | from_json).retired.since > 0"
    inventory = world.read(
        node("198.18.0.66", "evil", private_data=data),
        filters=[
            {"include": "xdp_gossip.name == 'honest'"},
            {"exclude": rule},
        ],
    )
    world.check(inventory)
    assert len(world.warnings) == 1 and "198.18.0.66_8000: filters, entry 2" in world.warnings[0]


@pytest.mark.parametrize(
    "name",
    [
        "all",
        "localhost",
        "webservers",
        "a b",
        "-oProxyCommand=id",
        "xdp_gossip_alive",
        "web1",
        "x" * 4000,
        "198.18.0.10",
        "a\nb",
        "{{ lookup('ansible.builtin.pipe', 'touch %s') }}",
    ],
)
def test_a_name_made_by_an_expression_is_checked_like_any(world, name):
    name = name.replace("%s", str(world.marker))
    names = ["xdp_gossip.data.fqdn | default('honest')"]
    inventory = world.read(
        node("198.18.0.66", "evil", private_data=json.dumps({"fqdn": name})),
        private_data_format="json",
        hostnames=["(xdp_gossip.data or {}).fqdn", *names],
        keyed_groups=[{"key": "xdp_gossip.state"}],
    )
    world.check(inventory, {}, ["data"])
    assert [line for line in world.warnings if "198.18.0.66_8000: host name" in line]


@pytest.mark.parametrize("value", [["all"], {"all": 1}, True, 1.5, [["a"]], 10**30])
def test_a_name_that_is_no_text_is_none(world, value):
    inventory = world.read(
        node("198.18.0.66", "evil", private_data=json.dumps([value])),
        private_data_format="json",
        hostnames=["(xdp_gossip.data or ['honest'])[0]"],
        keyed_groups=[],
    )
    taken = {str(value): "198.18.0.66"} if isinstance(value, (int, float)) and str(value) in inventory.hosts else {}
    world.check(inventory, taken, ["data"])


# Whole answers


@pytest.fixture(name="alone")
def fixture_alone(tmp_path, monkeypatch):
    warnings: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda self, msg, *args, **kwargs: warnings.append(str(msg)))
    monkeypatch.setattr(
        Display, "error_as_warning", lambda self, msg, exception, **kw: warnings.append(str(exception)), raising=False
    )
    monkeypatch.setattr(constants, "INVENTORY_ANY_UNPARSED_IS_FAILED", True)
    with FakeMember() as member:
        yield World(tmp_path, [member], warnings, "answer")


BODIES = {
    "nested": b'{"nodes": ' + b"[" * 90000,
    "nested and closed": b'{"nodes": ' + b"[" * 900 + b"]" * 900 + b"}",
    "no list": b'{"nodes": {}}',
    "nothing": b"{}",
    "null": b"null",
    "bomb": b'{"nodes": [], "more": [' + b"[]," * 6000000 + b"1]}",
    "invalid UTF-8": b'{"nodes": [{"addr": "198.18.0.66", "port": 8000, "name": "\xff\xfe", "state": "alive"}]}',
    "a long number": b'{"nodes": [{"addr": "198.18.0.66", "port": ' + b"9" * 100000 + b"}]}",
    "infinity": b'{"nodes": [{"addr": "198.18.0.66", "port": 8000, "state": "alive", "last_heard": 1e999}]}',
}


@pytest.mark.parametrize("body", list(BODIES))
@pytest.mark.parametrize("consistency", ["one", "majority"])
def test_a_whole_answer_that_is_hostile_is_an_error(alone, body, consistency):
    alone.member.misbehave = lambda handler: handler.reply(200, BODIES[body])
    with pytest.raises(AnsibleError):
        alone.read(consistency=consistency, timeout=20, retries=0)
    assert alone.member.url + ": expected a NodeList: " in "".join(alone.warnings)


def drip(handler: t.Any) -> None:
    """An honest beginning, and then a byte now and then forever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _each in range(1200):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def pour(handler: t.Any) -> None:
    """An answer without an end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)
        time.sleep(0.001)  # so that a client without a bound does not eat all memory before it gives up


@pytest.mark.parametrize("consistency", ["one", "majority"])
def test_a_slow_answer_ends_with_the_timeout(alone, consistency):
    alone.member.misbehave = drip
    with pytest.raises(AnsibleError):
        alone.read(consistency=consistency, timeout=1, retries=1)
    assert "no complete answer within 1 s" in "".join(alone.warnings)


@pytest.mark.parametrize("consistency", ["one", "majority"])
def test_an_endless_answer_ends_at_the_bound(alone, monkeypatch, consistency):
    monkeypatch.setattr(_client, "MAX_BODY", 1 << 20)
    alone.member.misbehave = pour
    with pytest.raises(AnsibleError):
        alone.read(consistency=consistency, timeout=5, retries=0)
    assert "longer than 1048576 bytes" in "".join(alone.warnings)


@pytest.mark.parametrize("misbehave", [drip, lambda handler: handler.reply(200, BODIES["nested"])])
def test_one_hostile_answer_of_three_does_no_harm(alone, misbehave):
    """The other two are a majority."""
    alone.member.misbehave = misbehave
    with FakeMember() as second, FakeMember() as third:
        second.nodes = third.nodes = [node("198.18.0.10", "honest", private_data="p")]
        endpoints = [alone.member.url, second.url, third.url]
        alone.check(alone.read(endpoints=endpoints, consistency="majority", timeout=1, retries=0))


# Cache files


def forged(**changes: t.Any) -> t.Callable[[dict[str, t.Any]], None]:
    """Rewrites the answer in the cache file."""
    return lambda entry: entry["answers"][0].update(changes)


@pytest.mark.parametrize(
    "forge",
    [
        *[
            pytest.param(forged(body=body.decode("utf-8", "surrogateescape")), id="body: " + name)
            for name, body in BODIES.items()
        ],
        pytest.param(forged(body=7), id="body: a number"),
        pytest.param(forged(body={"nodes": []}), id="body: not as text"),
        pytest.param(forged(endpoint="http://198.18.0.99:1"), id="another endpoint"),
        pytest.param(lambda entry: entry.update(answers=[]), id="no answer"),
        pytest.param(lambda entry: entry.update(answers=entry["answers"] * 2), id="an answer twice"),
        pytest.param(lambda entry: entry.update(stored_at="now"), id="no time"),
        pytest.param(lambda entry: entry.update(stored_at=4e9), id="the future"),
        pytest.param(lambda entry: entry.clear(), id="empty"),
        pytest.param(lambda entry: entry.update(format=1), id="another format"),
    ],
)
def test_a_forged_cache_file_is_no_cache(alone, forge):
    alone.read()
    alone.rewrite_cache(forge)
    inventory = alone.read()
    alone.check(inventory)
    assert len(alone.member.requests) == 2


def test_a_cache_file_cannot_write_headers(alone, monkeypatch):
    alone.read()
    alone.rewrite_cache(lambda entry: entry.update(stored_at=1))
    alone.rewrite_cache(forged(etag='"a"\r\nX-Forged: 1'))
    alone.check(alone.read())
    headers = alone.member.requests[1][3]
    assert "x-forged" not in headers and "if-none-match" not in headers


def test_a_cache_file_cannot_make_a_whole_answer_trusted(alone):
    """From 2.19 on, a cache file keeps the mark that makes a string a template: also of the one that has the answer."""
    alone.read(node("198.18.0.66", "evil", private_data=alone.template()))

    def trust(entry: dict[str, t.Any]) -> None:
        for part, value in entry["answers"][0].items():
            tags = [{"__ansible_type": "TrustedAsTemplate"}]
            entry["answers"][0][part] = {"value": value, "tags": tags, "__ansible_type": "_AnsibleTaggedStr"}

    alone.rewrite_cache(trust)
    inventory = alone.read(node("198.18.0.66", "evil", private_data=alone.template()), from_cache=KEEPS_TRUST)
    alone.check(inventory, {"evil": "198.18.0.66"})
    assert not is_trusted_as_template(inventory.hosts["evil"].vars["xdp_gossip"]["private_data"])
