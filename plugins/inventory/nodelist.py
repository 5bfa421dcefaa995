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
  - Every host has exactly two variables. C(ansible_host) is the node's address, and C(xdp_gossip) is a dictionary with
    C(addr), C(port), C(name), C(private_data), C(state), C(incarnation), C(sequence),
    C(version), C(protocol), C(last_heard), C(digest), C(local) and C(record_known); with O(private_data_format) also
    C(data). O(compose) adds more.
  - Data from members is never a template, never the name of a variable, and never the name of a group without a prefix.
  - A node is left out, with a warning, or with an error under O(strict), if none of O(hostnames) is a valid host name,
    or if its name is reserved, shared with another node, the name of a group, or the name of a host with another
    address in an earlier inventory source. It is also left out if its address leads to no other machine (loopback, for
    example).
  - Relative paths in the inventory file (O(token_file), O(ca_path), O(client_cert), O(client_key)) are relative to it.
    In C(ansible.cfg) they are relative to that file; in the environment and in extra variables, to the current
    directory.
  - If no member answers, the source fails. Ansible continues without it unless C(INVENTORY_ANY_UNPARSED_IS_FAILED) is
    set.
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
    description: Include nodes in one of these states.
    type: list
    elements: str
    choices: [alive, suspect, dead, left]
    default: [alive]
    env:
      - name: XDP_GOSSIP_STATES
    ini:
      - section: xdp_gossip
        key: states
    vars:
      - name: xdp_gossip_states
  filters:
    description:
      - Which of these nodes become hosts. A list of rules, each a dictionary with the one key C(include) or C(exclude)
        and a Jinja condition over the node's variables. The first rule whose condition is true decides; a node for
        which none is true is included.
      - A node for which a condition cannot be evaluated is left out, with a warning, or with an error under O(strict).
        Otherwise it could escape an exclusion by writing data on which the condition fails.
      - Use the condition C(true) in a last rule, as in C(exclude) of every node that no earlier rule has included.
    type: list
    elements: dict
    default: []
    suboptions:
      include:
        description: Include nodes for which this is true.
        type: raw
      exclude:
        description: Exclude nodes for which this is true.
        type: raw
  hostnames:
    description:
      - Sources of host names in order of preference; the first that is not empty and a valid host name is used. If a
        name is not valid, for example because of a space, the next one is used with a warning, or that is an error
        under O(strict).
      - V(name) is the name that the node gives itself, V(addr) its address, V(addr_port) its address and port as in
        C(198.18.0.11_8000) and C(fd00--11_8000). Anything else is a Jinja expression over the node's variables.
    type: list
    elements: str
    default: [name, addr_port]
    env:
      - name: XDP_GOSSIP_HOSTNAMES
    ini:
      - section: xdp_gossip
        key: hostnames
    vars:
      - name: xdp_gossip_hostnames
  private_data_format:
    description:
      - Format of the nodes' private data. With V(json) or V(yaml) it is parsed, and the result is C(xdp_gossip.data);
        with V(text) there is no such key.
      - C(xdp_gossip.data) is C(null) for a node without private data, and for one whose private data cannot be read or
        is refused; that is a warning, or an error under O(strict).
      - YAML aliases, tags and several documents, more than 16 levels, keys that are not text or start with two
        underscores, numbers that JSON does not have, and invalid Unicode are refused.
    type: str
    choices: [text, json, yaml]
    default: text
    env:
      - name: XDP_GOSSIP_PRIVATE_DATA_FORMAT
    ini:
      - section: xdp_gossip
        key: private_data_format
    vars:
      - name: xdp_gossip_private_data_format
  consistency:
    description:
      - V(one) uses the first endpoint that answers.
      - V(majority) asks all O(endpoints) at once and needs answers from more than half of them, so a member that is cut
        off or lags behind does not decide alone. Each endpoint should be another member.
      - Only views with a node's latest incarnation count, and among these the state that most members see. In a tie,
        C(left) comes before C(dead), C(suspect) and C(alive).
      - It is no defence against a member that lies.
    type: str
    choices: [one, majority]
    default: one
    env:
      - name: XDP_GOSSIP_CONSISTENCY
    ini:
      - section: xdp_gossip
        key: consistency
    vars:
      - name: xdp_gossip_consistency
  cache_timeout:
    description:
      - Seconds for which the cached NodeList is valid. V(0) means forever.
      - After that the plugin asks the members that gave it whether it has changed (a conditional request). If not, it
        is valid for that time again, with C(last_heard) and C(sequence) as they were.
  keyed_groups:
    description:
      - As in other inventories, except that the default of C(prefix) is C(xdp_gossip), and that an empty prefix and a
        template as C(parent_group) are refused. Otherwise a node could choose to be in any group and read its secrets.
  strict:
    description:
      - As in other inventories. In addition, a node that must be left out is an error instead of a warning.
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
# Private data such as {"zone": "a", "role": "db"} as data, and only some of the nodes.
plugin: xdp_gossip.fleet.nodelist
private_data_format: json
filters:
  - exclude: (xdp_gossip.data or {}).maintenance | default(false)
  - include: (xdp_gossip.data or {}).role | default('') in ['db', 'web']
  - exclude: true
keyed_groups:
  - key: xdp_gossip.data.zone
    prefix: zone

---
# What most members agree on.
plugin: xdp_gossip.fleet.nodelist
endpoints:
  - https://198.18.0.11:8001
  - https://198.18.0.12:8001
  - https://198.18.0.13:8001
ca_path: /etc/ssl/fleet-ca.pem
token_file: ~/.config/xdp-gossip/token
consistency: majority

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

import os
import time
import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.vars import combine_vars
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import OPTIONS, ClientError, Endpoint
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._cache import RETENTION, Entry, decode
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._filters import chosen, parse_filters
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._groups import check_keyed_groups, group_names
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._merge import merge
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._names import (
    NameMalformed,
    NameRefused,
    address_and_port,
    address_of,
    check_name,
    refuse_shared,
)
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._private_data import parse_private_data
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Answer, Source, majority_of
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._templates import condition_holds, untrusted

#: Connection options that are paths, and those that the operator may write as templates.
_PATHS = ("token_file", "ca_path", "client_cert", "client_key")
_TEMPLATED = ("token",) + _PATHS

#: Complaints that are shown one by one; a fleet of thousands must not fill the terminal.
_MOST_WARNINGS = 20

_FIELDS: dict[str, t.Callable[[dict[str, t.Any]], str]] = {
    "name": lambda node: node["name"],
    "addr": lambda node: node["addr"],
    "addr_port": address_and_port,
}

_ME = "xdp_gossip.fleet.nodelist: "


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "xdp_gossip.fleet.nodelist"

    def verify_file(self, path: str) -> bool:
        """Whether the file's name says that it is ours."""
        ours = ("nodelist.yml", "nodelist.yaml", "xdp_gossip.yml", "xdp_gossip.yaml")
        return super().verify_file(path) and path.endswith(ours)

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Fill the inventory. Raises ``AnsibleParserError`` and then leaves it as it was."""
        super().parse(inventory, loader, path, cache)
        self._given = self._read_config_data(path)
        self._problems: list[str] = []
        self._renamed: list[str] = []
        try:
            self.set_option("keyed_groups", check_keyed_groups(self.get_option("keyed_groups")))
            self._filters = parse_filters(self.get_option("filters"))
            nodes = self._nodes(path, cache)
        except (ClientError, ValueError) as exc:
            raise AnsibleParserError("%s%s" % (_ME, exc)) from exc
        hosts = self._name([node for node in nodes if self._is_chosen(node)])
        self._complain()
        # All hosts before any group: a variable set for a name that is a group too would go to the group.
        for name, variables in hosts:
            self._add(name, variables)
        for name, variables in hosts:
            self._add_groups(name, variables)

    # Where nodes come from

    def _nodes(self, path: str, cache: bool) -> list[dict[str, t.Any]]:
        """The nodes in the wanted states. Raises ``ClientError`` and ``ValueError``."""
        answers = self._answers(path, cache)
        # Several members tell of the same nodes: what is wrong with one is said once.
        self._problems.extend(dict.fromkeys(problem for answer in answers for problem in answer.problems))
        # A single answer is of the wanted states already, unless the member ignored the question.
        nodes = answers[0].nodes if self.get_option("consistency") == "one" else merge(answers)
        return [node for node in nodes if node["state"] in self.get_option("states")]

    def _answers(self, path: str, cache: bool) -> list[Answer]:
        """From the cache when that is wanted and possible, else from members, who may say that nothing has changed."""
        consistency = self.get_option("consistency")
        endpoints = self._endpoints()
        states = sorted(str(state) for state in self.get_option("states"))
        asked = {"states": states, "endpoints": endpoints, "consistency": consistency}
        key, entry, now = self.get_cache_key(path), None, time.time()
        if self.get_option("cache"):
            self._keep_longer()
            if cache:
                least, most = (1, 1) if consistency == "one" else (majority_of(len(endpoints)), len(endpoints))
                entry = self._cached(key, asked, least, most)
        if entry and entry.counts(self.get_option("cache_timeout"), now):
            self.display.vvv("nodelist: %.0f s old, from the cache" % (now - entry.stored_at))
            return entry.answers
        source = Source(self._connection(endpoints, path), states, lambda text: self.display.vvv("nodelist: " + text))
        held = {answer.endpoint: answer for answer in entry.answers} if entry else {}
        answers = source.one(held) if consistency == "one" else source.majority(held)
        for answer in answers:
            what = "unchanged at" if held.get(answer.endpoint) is answer else "from"
            self.display.vvv("nodelist: %d nodes %s %s" % (len(answer.nodes), what, answer.endpoint))
        if self.get_option("cache"):
            # Only now that members have answered: a hit must not make what it found any younger.
            self._cache[key] = Entry(asked, now, answers).encode()
        return answers

    def _keep_longer(self) -> None:
        """Open the cache so that it still gives out what has ceased to count, to ask members whether it has changed."""
        timeout = self.get_option("cache_timeout")
        self.set_option("cache_timeout", timeout and timeout + RETENTION)
        try:
            self.load_cache_plugin()
        finally:
            self.set_option("cache_timeout", timeout)

    def _cached(self, key: str, asked: dict[str, t.Any], least: int, most: int) -> Entry | None:
        try:
            return decode(self._cache[key], asked, least, most)
        except KeyError:
            return None
        except Exception as exc:
            # Every cache plugin fails in its own way; none of them may keep the live answer away.
            self.display.warning("%sthe cache cannot be read: %s" % (_ME, clip(str(exc))))
            return None

    # Configuration

    def _endpoints(self) -> list[str]:
        urls = []
        for entry in self.get_option("endpoints"):
            value = self._templated(entry)
            urls.extend(value if isinstance(value, list) else [value])
        return list(dict.fromkeys(Endpoint(str(url)).url for url in urls))

    def _connection(self, endpoints: list[str], path: str) -> dict[str, t.Any]:
        options = {option: self.get_option(option) for option in OPTIONS}
        options.update({option: self._templated(options[option]) for option in _TEMPLATED}, endpoints=endpoints)
        options.update({option: self._beside(path, option) for option in _PATHS if self._given.get(option)})
        return options

    def _beside(self, path: str, option: str) -> str:
        """A file that the configuration at ``path`` names, looked up beside it.

        Taken as it was written: Ansible makes paths absolute from the current directory, templates too.
        """
        named = os.path.expandvars(os.path.expanduser(str(self._templated(self._given[option]))))
        return os.path.join(os.path.dirname(os.path.abspath(path)), named)

    def _templated(self, value: t.Any) -> t.Any:
        # The configuration is the operator's own, so lookups and vaulted variables are welcome in it.
        return self.templar.template(value) if value and self.templar.is_template(value) else value

    # Hosts

    def _complain(self) -> None:
        """Tell what was left out, and forget it. Raises ``AnsibleParserError`` under ``strict``."""
        problems, self._problems = self._problems, []
        if problems and self.get_option("strict"):
            raise AnsibleParserError("%sleft out: %s" % (_ME, problems[0]))
        self._warn_each("left out", problems)
        self._warn_each("renamed", self._renamed)

    def _warn_each(self, what: str, texts: list[str]) -> None:
        """Warnings, the first few one by one."""
        for position, text in enumerate(texts):
            show = self.display.warning if position < _MOST_WARNINGS else self.display.vvv
            show("%s%s: %s" % (_ME, what, text))
        if len(texts) > _MOST_WARNINGS:
            self.display.warning("%s%s: %d more, which -vvv shows" % (_ME, what, len(texts) - _MOST_WARNINGS))

    def _is_chosen(self, node: dict[str, t.Any]) -> bool:
        """Parse the node's private data into ``node`` if that is wanted, and ask the filters."""
        form = self.get_option("private_data_format")
        if form != "text":
            try:
                node["data"] = parse_private_data(node["private_data"], form)
            except ValueError as exc:
                node["data"] = None
                self._problems.append("private data of %s: %s" % (address_and_port(node), exc))
        if not self._filters:
            return True
        variables = self._variables(node)
        if self.get_option("use_extra_vars"):
            variables = combine_vars(variables, self._vars)
        try:
            return chosen(self._filters, lambda rule: condition_holds(self.templar, rule, variables))
        except ValueError as exc:
            self._problems.append("%s: %s" % (address_and_port(node), clip(str(exc), 400)))
            return False

    @staticmethod
    def _variables(node: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"ansible_host": node["addr"], "xdp_gossip": untrusted(node)}

    def _name(self, nodes: list[dict[str, t.Any]]) -> list[tuple[str, dict[str, t.Any]]]:
        """Host names and variables of those that may be hosts."""
        prefixes, groups = group_names(
            self.inventory.groups, self.get_option("groups"), self.get_option("keyed_groups"), self._sanitize_group_name
        )
        named = []
        for node in nodes:
            try:
                address_of(node)
                name = self._preferred(node, prefixes, groups)
                self._check_known(name, node)
                named.append((name, node))
            except NameRefused as exc:
                self._problems.append("%s: %s" % (address_and_port(node), exc))
        kept, shared = refuse_shared(named)
        self._problems.extend(shared)
        return [(str(name), self._variables(node)) for name, node in kept]

    def _preferred(self, node: dict[str, t.Any], prefixes: list[str], groups: t.Container[str]) -> str:
        """The first of the preferences that is not empty and can be a host name; raises ``NameRefused``.

        What means something else to Ansible ends the search: who calls itself so is not taken under another name.
        """
        malformed: NameMalformed | None = None
        for wanted in self._wanted_names(node):
            try:
                name = check_name(wanted, node, prefixes, groups)
            except NameMalformed as exc:
                if self.get_option("strict"):
                    raise
                malformed = malformed or exc
                continue
            if malformed:
                self._renamed.append("%s: %s; it is called %s" % (address_and_port(node), malformed, name))
            return name
        raise malformed or NameRefused("none of the hostnames preferences gives it a name")

    def _wanted_names(self, node: dict[str, t.Any]) -> t.Iterator[t.Any]:
        """What the preferences make of the node, without what is empty."""
        for preference in self.get_option("hostnames"):
            if preference in _FIELDS:
                name = _FIELDS[preference](node)
            else:
                try:
                    name = self._compose(preference, self._variables(node))
                except Exception as exc:
                    # Templates raise whatever the filters in them raise.
                    if self.get_option("strict"):
                        text = "%shostnames: %s: %s" % (_ME, preference, clip(str(exc), 400))
                        raise AnsibleParserError(text) from exc
                    name = None
            if name not in (None, ""):
                yield str(name) if isinstance(name, (str, int)) else name

    def _check_known(self, name: str, node: dict[str, t.Any]) -> None:
        """A host of an earlier source keeps its name, unless the node is at that host's own address."""
        known = self.inventory.hosts.get(name)
        if known is not None and str(known.vars.get("ansible_host", name)) != node["addr"]:
            raise NameRefused("host name %r belongs to a host of another inventory source" % clip(name, 80))

    def _add(self, name: str, variables: dict[str, t.Any]) -> None:
        name = self.inventory.add_host(name)
        for variable, value in variables.items():
            self.inventory.set_variable(name, variable, value)
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=self.get_option("strict"))

    def _add_groups(self, name: str, variables: dict[str, t.Any]) -> None:
        strict = self.get_option("strict")
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
