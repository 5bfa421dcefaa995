# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: nodelist
short_description: Live members of a fleet as an inventory
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Reads the live NodeList from any one member of a fleet. The configuration file's name must end in
    C(nodelist.yml), C(nodelist.yaml), C(xdp_gossip.yml) or C(xdp_gossip.yaml).
  - Every host gets exactly two variables. C(ansible_host) is the node's address and C(xdp_gossip) a dictionary with
    what is known of it, C(addr), C(port), C(name), C(private_data), C(state), C(incarnation), C(sequence),
    C(version), C(protocol), C(last_heard), C(digest), C(local) and C(record_known). O(compose) adds more.
  - What members say of themselves is data and never a template, never the name of a variable, and never the name of a
    group without a prefix.
  - A node is left out, with a warning, or with an error under O(strict), when its name is malformed, reserved, shared
    by another node, that of a group, or that of a host with another address in an earlier inventory source; likewise
    when its address leads to no other machine (loopback, for example).
  - When no member answers, the source fails. Ansible goes on without it unless C(INVENTORY_ANY_UNPARSED_IS_FAILED)
    is set.
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.connection.plugins
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Marks the file as one for this plugin.
    type: str
    required: true
    choices: [xdp_gossip.fleet.nodelist]
  states:
    description: Nodes in one of these states are taken.
    type: list
    elements: str
    choices: [alive, suspect, dead, left]
    default: [alive]
  hostnames:
    description:
      - What hosts are called, in order of preference; the first that is not empty is taken.
      - V(name) is the name that the node gives itself, V(addr) its address, V(addr_port) its address and port as in
        C(198.18.0.11_8000) and C(fd00--11_8000). Anything else is a Jinja expression over the dictionary C(xdp_gossip).
    type: list
    elements: str
    default: [name, addr_port]
  keyed_groups:
    description:
      - As in other inventories, except that the default of C(prefix) is C(xdp_gossip), and that an empty prefix and a
        template as C(parent_group) are refused. Otherwise a node could choose to be in any group and read its secrets.
  strict:
    description:
      - As in other inventories. Besides, a node that cannot be taken is an error instead of a warning.
"""

EXAMPLES = r"""
# fleet.nodelist.yml: ask the agent on this machine
---
plugin: xdp_gossip.fleet.nodelist

---
# Ask members over the network. Groups are xdp_gossip_alive, zone_a and so on.
plugin: xdp_gossip.fleet.nodelist
endpoints:
  - https://198.18.0.11:8001
  - https://198.18.0.12:8001
ca_path: /etc/ssl/fleet-ca.pem
token_file: ~/.config/xdp-gossip/token
states: [alive, suspect]
keyed_groups:
  - key: xdp_gossip.state
  - key: (xdp_gossip.private_data | from_json).zone
    prefix: zone
groups:
  outdated: xdp_gossip.version is version('0.1.0', '<')
compose:
  rack: (xdp_gossip.private_data | from_json).rack | default('unknown')

---
# Several agents on one address, and a cache of a minute in a file.
plugin: xdp_gossip.fleet.nodelist
hostnames:
  - xdp_gossip.name ~ '-' ~ xdp_gossip.port
  - addr_port
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: /tmp/fleet-cache
cache_timeout: 60
"""

import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import Client, ClientError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import parse_nodes
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import Settings
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._names import (
    NameRefused,
    address_and_port,
    address_of,
    check_name,
    refuse_shared,
)

try:
    from ansible.template import trust_as_template as _tagging
except ImportError:  # ansible-core 2.18, where every string of a variable is a template unless it is wrapped
    _tagging = None

#: Layout of what is put in the cache.
_CACHE_FORMAT = 1

_CONNECTION = (
    "endpoints", "token", "token_file", "ca_path", "client_cert", "client_key", "validate_certs", "timeout", "retries",
)
_TEMPLATED = ("endpoints", "token", "token_file", "ca_path", "client_cert", "client_key")

_FIELDS: dict[str, t.Callable[[dict[str, t.Any]], str]] = {
    "name": lambda node: node["name"],
    "addr": lambda node: node["addr"],
    "addr_port": address_and_port,
}


def untrusted(value: t.Any) -> t.Any:
    """``value`` in the form that Ansible will not take for a template."""
    if _tagging is None:
        from ansible.utils.unsafe_proxy import wrap_var

        return wrap_var(value)
    return value  # plain strings carry no trust from 2.19 on


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "xdp_gossip.fleet.nodelist"

    def verify_file(self, path: str) -> bool:
        """Whether the file's name says that it is ours."""
        ours = ("nodelist.yml", "nodelist.yaml", "xdp_gossip.yml", "xdp_gossip.yaml")
        return super().verify_file(path) and path.endswith(ours)

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Fill the inventory. Raises ``AnsibleParserError`` and then leaves it as it was."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self._check_keyed_groups()
        answer = self._nodes(path, cache)
        try:
            nodes, problems = parse_nodes(answer)
        except ValueError as exc:
            raise AnsibleParserError("%s: %s" % (path, exc)) from exc
        nodes = [node for node in nodes if node["state"] in self.get_option("states")]
        hosts, more = self._name(nodes)
        for problem in problems + more:
            self._complain(problem)
        # All hosts before any group: a variable set for a name that is a group too would go to the group.
        variables = {name: self._add(name, node) for name, node in hosts}
        for name, values in variables.items():
            self._add_groups(name, values)

    # Configuration

    def _check_keyed_groups(self) -> None:
        """Groups made of remote values get a prefix, always. Changes the option in place."""
        checked = []
        for entry in self.get_option("keyed_groups") or []:
            if not isinstance(entry, dict):
                raise AnsibleParserError("keyed_groups: expected dictionaries, got %s" % type(entry).__name__)
            entry = dict(entry)
            entry.setdefault("prefix", "xdp_gossip")
            if not isinstance(entry["prefix"], str) or not entry["prefix"].strip(" _"):
                raise AnsibleParserError(
                    "keyed_groups: prefix: expected text that is not empty, got %r. A node could join any group"
                    % (entry["prefix"],)
                )
            parent = entry.get("parent_group")
            if parent and ("{{" in str(parent) or "{%" in str(parent)):
                raise AnsibleParserError("keyed_groups: parent_group: expected a plain name, got %r" % parent)
            checked.append(entry)
        self.set_option("keyed_groups", checked)

    def _settings(self) -> Settings:
        options = {option: self.get_option(option) for option in _CONNECTION}
        for option in _TEMPLATED:
            # The configuration file is the operator's own, so lookups and vaulted variables are welcome in it.
            if options[option] and self.templar.is_template(options[option]):
                options[option] = self.templar.template(options[option])
        return Settings(options)

    # Where nodes come from

    def _nodes(self, path: str, cache: bool) -> t.Any:
        """Unchecked nodes, from the cache when that is wanted and possible, else from a member."""
        wanted = sorted(str(state) for state in self.get_option("states"))
        endpoints = [str(url) for url in self.get_option("endpoints")]
        source = {"format": _CACHE_FORMAT, "states": wanted, "endpoints": endpoints}
        key = self.get_cache_key(path)
        enabled = self.get_option("cache")
        if enabled and cache:
            held = self._cached(key)
            if isinstance(held, dict) and all(held.get(part) == value for part, value in source.items()):
                return held.get("nodes")
        nodes = self._fetch(wanted)
        if enabled:
            # Only after a real fetch: a hit must not make what it found any younger.
            self._cache[key] = dict(source, nodes=nodes)
        return nodes

    def _cached(self, key: str) -> t.Any:
        try:
            return self._cache[key]
        except KeyError:
            return None
        except Exception as exc:
            # Every cache plugin fails in its own way; none of them may keep the live answer away.
            self.display.warning("xdp_gossip.fleet.nodelist: the cache cannot be read: %s" % clip(str(exc)))
            return None

    def _fetch(self, states: list[str]) -> list[dict[str, t.Any]]:
        try:
            fleet = Fleet(Client(self._settings(), log=lambda text: self.display.vvv("nodelist: " + text)))
            nodes, problems = fleet.nodes(states)
        except ClientError as exc:
            raise AnsibleParserError("xdp_gossip.fleet.nodelist: %s" % exc) from exc
        for problem in problems:
            self._complain(problem)
        self.display.vvv("nodelist: %d nodes from %s" % (len(nodes), fleet.endpoint))
        return nodes

    # Hosts

    def _complain(self, problem: str) -> None:
        text = "xdp_gossip.fleet.nodelist: left out: " + problem
        if self.get_option("strict"):
            raise AnsibleParserError(text)
        self.display.warning(text)

    def _name(self, nodes: list[dict[str, t.Any]]) -> tuple[list[tuple[str, dict[str, t.Any]]], list[str]]:
        """Nodes with the host names that they get, and why any gets none."""
        prefixes, groups = self._group_names()
        named, problems = [], []
        for node in nodes:
            try:
                address_of(node)
                name = check_name(self._preferred(node), node, prefixes, groups)
                self._check_known(name, node)
                named.append((name, node))
            except NameRefused as exc:
                problems.append("%s: %s" % (address_and_port(node), exc))
        kept, shared = refuse_shared(named)
        return kept, problems + shared

    def _group_names(self) -> tuple[list[str], set[str]]:
        """Beginnings of the groups that keyed_groups makes, and the groups that exist or are configured."""
        groups = {str(group).lower() for group in self.inventory.groups}
        groups.update(str(group).lower() for group in self.get_option("groups") or {})
        prefixes = []
        for entry in self.get_option("keyed_groups") or []:
            prefixes.append(self._sanitize_group_name(entry["prefix"] + str(entry.get("separator", "_"))).lower())
            if entry.get("parent_group"):
                groups.add(str(entry["parent_group"]).lower())
        return prefixes, groups

    def _preferred(self, node: dict[str, t.Any]) -> t.Any:
        for preference in self.get_option("hostnames"):
            if preference in _FIELDS:
                name = _FIELDS[preference](node)
            else:
                try:
                    name = self._compose(preference, {"xdp_gossip": untrusted(node)})
                except Exception as exc:
                    # Templates raise whatever the filters in them raise.
                    if self.get_option("strict"):
                        raise AnsibleParserError("hostnames: %s: %s" % (preference, exc)) from exc
                    name = None
            if name not in (None, ""):
                return str(name) if isinstance(name, (str, int)) else name
        raise NameRefused("none of the hostnames preferences gives it a name")

    def _check_known(self, name: str, node: dict[str, t.Any]) -> None:
        """A host of an earlier source keeps its name, unless the node is at that host's own address."""
        known = self.inventory.get_host(name)
        if known is not None and str(known.vars.get("ansible_host", name)) != node["addr"]:
            raise NameRefused("host name %r belongs to a host of another inventory source" % clip(name, 80))

    def _add(self, name: str, node: dict[str, t.Any]) -> dict[str, t.Any]:
        """Add one host; returns its variables."""
        name = self.inventory.add_host(str(name))
        variables = {"ansible_host": address_of(node), "xdp_gossip": untrusted(node)}
        for variable, value in variables.items():
            self.inventory.set_variable(name, variable, value)
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=self.get_option("strict"))
        return variables

    def _add_groups(self, name: str, variables: dict[str, t.Any]) -> None:
        strict = self.get_option("strict")
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
