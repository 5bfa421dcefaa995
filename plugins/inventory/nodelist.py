# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: nodelist
short_description: Use the live members of a fleet as an inventory
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Reads the current NodeList of a fleet from one member. The plugin can use any member of the fleet. The name of the
    inventory file must end in C(nodelist.yml), C(nodelist.yaml), C(xdp_gossip.yml) or C(xdp_gossip.yaml).
  - The plugin sets exactly two variables of each host. C(ansible_host) is the node's address, and C(xdp_gossip) is a
    dictionary with C(addr), C(port), C(name), C(private_data), C(state), C(incarnation), C(sequence), C(version),
    C(protocol), C(zone), C(sealing), C(last_heard), C(digest), C(local) and C(record_known). With
    O(private_data_format), the dictionary C(xdp_gossip) also has the key C(data). O(compose) adds more variables.
  - C(xdp_gossip.zone) is empty for a node without a zone. With C(xdp_gossip.zone) as the key of an entry of
    O(keyed_groups), a node without a zone joins no group. To collect the nodes without a zone in a group, set
    C(default_value) in this entry. With O(strict), an empty key without C(default_value) causes an error.
  - Data from members never becomes a template, the name of a variable, or the name of a group without a prefix.
  - The inventory leaves a node out if no entry of O(hostnames) gives a valid host name. The inventory also leaves a
    node out if the node's name is reserved, is the name of another node or of a group, or is the name of a host that
    has another address in an earlier inventory source. The inventory also leaves out a node whose address cannot belong
    to another machine, such as a loopback address. The inventory shows a warning for each node that it leaves out. With
    O(strict), a node that must be left out causes an error.
  - The plugin resolves relative paths in the inventory file (O(token_file), O(ca_path), O(client_cert), O(client_key))
    from the directory of the inventory file. Relative paths in C(ansible.cfg) are resolved from the directory of
    C(ansible.cfg). Relative paths in the environment and in extra variables are resolved from the current directory.
  - If a member reports that it is isolated, which means that no other member answers it, the plugin shows a warning and
    asks the next of O(endpoints). If only isolated members answer, the plugin uses the answer of the last of them,
    shows a warning, and does not store the answer in the cache. With O(consistency=majority), an isolated member counts
    as an endpoint that failed.
  - If no member answers, the inventory source fails. If the inventory source fails, Ansible continues without it unless
    C(INVENTORY_ANY_UNPARSED_IS_FAILED) is set.
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.connection.plugins
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Name of this plugin. The key O(plugin) marks the file as an inventory source of the plugin.
    type: str
    required: true
    choices: [xdp_gossip.fleet.nodelist]
  states:
    description:
      - States of the nodes to include in the inventory.
      - In the state V(agent_down), the host answers although its agent does not run. The inventory lists these hosts by
        default, so that a play can repair them, and adds them to the group C(xdp_gossip_agent_down). The host pattern
        C(all:!xdp_gossip_agent_down) leaves them out of a play.
    type: list
    elements: str
    choices: [alive, suspect, agent_down, dead, left]
    default: [alive, agent_down]
    env:
      - name: XDP_GOSSIP_STATES
    ini:
      - section: xdp_gossip
        key: states
    vars:
      - name: xdp_gossip_states
  filters:
    description:
      - Rules that select which of the nodes with a state in O(states) become hosts. Each rule is a dictionary with one
        key, C(include) or C(exclude), whose value is a Jinja condition over the node's variables. The first rule whose
        condition is true for a node decides whether this node becomes a host. If all conditions in O(filters) are false
        for a node, the node becomes a host.
      - If a condition cannot be evaluated for a node, the inventory leaves the node out and shows a warning. With
        O(strict), a condition that cannot be evaluated causes an error. A condition that cannot be evaluated does not
        count as false. If a failed condition counted as false, a node could avoid its exclusion by publishing data that
        makes the condition fail.
      - If the rule at the end of the list is C(exclude) with the condition C(true), this rule excludes every node that
        no earlier rule has included.
    type: list
    elements: dict
    default: []
    suboptions:
      include:
        description: Jinja condition. Include the nodes for which the condition is true.
        type: raw
      exclude:
        description: Jinja condition. Exclude the nodes for which the condition is true.
        type: raw
  hostnames:
    description:
      - Sources of host names in order of preference. The plugin skips empty names and uses the first source that gives
        a valid host name. If a name is not valid, for example because of a space, the plugin shows a warning and uses
        the next source. With O(strict), an invalid name causes an error.
      - V(name) is the name that the node gives itself. V(addr) is its address. V(addr_port) is the node's address and
        port, as in C(198.18.0.11_8000) and C(fd00--11_8000). Any other value of O(hostnames) is a Jinja expression over
        the node's variables.
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
      - Format of the nodes' private data. With O(private_data_format=json) or O(private_data_format=yaml), the plugin
        parses the private data into C(xdp_gossip.data). With O(private_data_format=text), C(xdp_gossip.data) does not
        exist.
      - C(xdp_gossip.data) is C(null) for a node without private data. If the plugin cannot parse the private data or
        refuses it, C(xdp_gossip.data) is also C(null), and the plugin shows a warning. With O(strict), private data
        that cannot be parsed or is refused causes an error.
      - The plugin refuses YAML aliases, YAML tags, more than one YAML document, more than 16 nested levels, keys that
        are not text, keys that start with two underscores, numbers that JSON cannot express, and invalid Unicode.
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
      - With O(consistency=one), the plugin uses the NodeList of the first endpoint that answers.
      - With O(consistency=majority), the plugin asks all O(endpoints) at once and needs answers from more than half of
        them. The result therefore does not depend on a single member whose NodeList is out of date. Each of the
        O(endpoints) should belong to a different member.
      - With O(consistency=majority), the plugin uses for each node only the answers that contain the latest incarnation
        of the node. For each node, the plugin uses the most frequent state among the answers that contain the node's
        latest incarnation. If several states are equally frequent, the plugin uses the first of C(left), C(dead),
        C(agent_down), C(suspect) and C(alive).
      - O(consistency=majority) does not protect against a member that returns false data on purpose.
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
      - Seconds for which a NodeList in the cache is valid. V(0) means forever.
      - When the NodeList in the cache has expired, the plugin sends a conditional request to the members that returned
        the NodeList, and asks whether the NodeList has changed. If the NodeList has not changed, the cached NodeList is
        valid for another O(cache_timeout) seconds, with its old C(last_heard) and C(sequence).
  keyed_groups:
    description:
      - The option C(keyed_groups) works as in other inventory plugins, with three exceptions. The default of C(prefix)
        in C(keyed_groups) is C(xdp_gossip). An empty prefix is an error. A template as C(parent_group) is an error.
        With an empty prefix, or a template as C(parent_group), a node could join any group and receive the group's
        secrets.
  strict:
    description:
      - The option C(strict) works as in other inventory plugins. With O(strict), the plugin also fails if it must leave
        out a node, and does not only show a warning.
"""

EXAMPLES = r"""
# fleet.nodelist.yml: ask the agent on this machine
---
plugin: xdp_gossip.fleet.nodelist

---
# Ask members over the network. Groups are xdp_gossip_alive, zone_a and so on. Nodes without a zone are in zone_none.
plugin: xdp_gossip.fleet.nodelist
endpoints:
  - https://198.18.0.11:8001
  - https://198.18.0.12:8001
ca_path: /etc/ssl/fleet-ca.pem
token_file: ~/.config/xdp-gossip/token
states: [alive, suspect]
keyed_groups:
  - key: xdp_gossip.state
  - key: xdp_gossip.zone
    prefix: zone
    default_value: none
groups:
  outdated: xdp_gossip.version is version('0.1.0', '<')
compose:
  rack: (xdp_gossip.private_data | from_json).rack | default('unknown')

---
# Private data such as {"role": "db"} as data, and only some of the nodes of one zone.
plugin: xdp_gossip.fleet.nodelist
private_data_format: json
filters:
  - exclude: xdp_gossip.zone != 'b' or (xdp_gossip.data or {}).maintenance | default(false)
  - include: (xdp_gossip.data or {}).role | default('') in ['db', 'web']
  - exclude: true
keyed_groups:
  - key: xdp_gossip.data.role
    prefix: role

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
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._groups import (
    AGENT_DOWN,
    check_keyed_groups,
    group_names,
)
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

#: _PATHS: connection options that name files. _TEMPLATED: connection options that may contain templates.
_PATHS = ("token_file", "ca_path", "client_cert", "client_key")
_TEMPLATED = ("token",) + _PATHS

#: Maximum number of warnings of one kind. Thousands of nodes must not fill the terminal, so further warnings are shown
#: only with -vvv.
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
        """Return whether the name of the file marks it as an inventory source of this plugin."""
        ours = ("nodelist.yml", "nodelist.yaml", "xdp_gossip.yml", "xdp_gossip.yaml")
        return super().verify_file(path) and path.endswith(ours)

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Add the fleet's nodes to ``inventory``. If the method raises ``AnsibleParserError``, it has added no node."""
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
        # Add all hosts before any group. If a group with the name of a host existed, Ansible would set the host's
        # variables on the group.
        for name, variables in hosts:
            self._add(name, variables)
        for name, variables in hosts:
            self._add_groups(name, variables)

    # Where nodes come from

    def _nodes(self, path: str, cache: bool) -> list[dict[str, t.Any]]:
        """Return the nodes in the states that the inventory selects. Raises ``ClientError`` and ``ValueError``."""
        answers = self._answers(path, cache)
        # Several members report the same nodes, so remove duplicate problems.
        self._problems.extend(dict.fromkeys(problem for answer in answers for problem in answer.problems))
        # Filter the states again, in case a member ignored the parameter ``state`` of the request.
        nodes = answers[0].nodes if self.get_option("consistency") == "one" else merge(answers)
        return [node for node in nodes if node["state"] in self.get_option("states")]

    def _answers(self, path: str, cache: bool) -> list[Answer]:
        """Return the answers from the cache if the cache entry has not expired. If the cache has expired or is empty,
        ask members. Use conditional requests if the cache has an expired entry.
        """
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
        source = Source(self._connection(endpoints, path), states, self._log, self._warn)
        held = {answer.endpoint: answer for answer in entry.answers} if entry else {}
        answers = source.one(held) if consistency == "one" else source.majority(held)
        for answer in answers:
            what = "unchanged at" if held.get(answer.endpoint) is answer else "from"
            self.display.vvv("nodelist: %d nodes %s %s" % (len(answer.nodes), what, answer.endpoint))
        if self.get_option("cache") and not any(answer.isolated for answer in answers):
            # Store only fresh answers. Write a cache entry only after a request, because each write renews the time of
            # the entry.
            self._cache[key] = Entry(asked, now, answers).encode()
        return answers

    def _log(self, text: str) -> None:
        self.display.vvv("nodelist: " + text)

    def _warn(self, text: str) -> None:
        self.display.warning(_ME + text)

    def _keep_longer(self) -> None:
        """Open the cache with a longer timeout, so that the cache still returns expired entries for conditional
        requests.
        """
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
            # Cache plugins raise exceptions of any type. After any exception, the plugin asks the fleet instead.
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
        """Return the path that the option ``option`` contains. The method resolves a relative path from the directory
        of the inventory file ``path``.

        The method reads the option from the inventory file, because ``get_option`` returns a path that Ansible has
        already resolved from the current directory.
        """
        named = os.path.expandvars(os.path.expanduser(str(self._templated(self._given[option]))))
        return os.path.join(os.path.dirname(os.path.abspath(path)), named)

    def _templated(self, value: t.Any) -> t.Any:
        # The operator wrote the inventory file, so templates in it are trusted and may use lookups and vaulted
        # variables.
        return self.templar.template(value) if value and self.templar.is_template(value) else value

    # Hosts

    def _complain(self) -> None:
        """Show a warning for each node that the inventory leaves out or renames. Raises ``AnsibleParserError`` under
        ``strict``.
        """
        problems, self._problems = self._problems, []
        if problems and self.get_option("strict"):
            raise AnsibleParserError("%sleft out: %s" % (_ME, problems[0]))
        self._warn_each("left out", problems)
        self._warn_each("renamed", self._renamed)

    def _warn_each(self, what: str, texts: list[str]) -> None:
        """Show the first ``_MOST_WARNINGS`` texts as warnings and the other texts only with -vvv. If some texts are
        shown only with -vvv, also show the number of these texts as a warning.
        """
        for position, text in enumerate(texts):
            show = self.display.warning if position < _MOST_WARNINGS else self.display.vvv
            show("%s%s: %s" % (_ME, what, text))
        if len(texts) > _MOST_WARNINGS:
            self.display.warning("%s%s: %d more, which -vvv shows" % (_ME, what, len(texts) - _MOST_WARNINGS))

    def _is_chosen(self, node: dict[str, t.Any]) -> bool:
        """Return whether the option ``filters`` includes the node. If a format is configured, first parse the node's
        private data into ``node["data"]``.
        """
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
        """Return host name and variables of each node that may become a host. Record a problem for each node that may
        not become a host.
        """
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
        """Return the first name that is not empty and is a valid host name. Raises ``NameRefused``.

        If a name has another meaning for Ansible, such as the name of a group, the node is refused, and the plugin does
        not try a further name.
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
        """Yield the name that each entry of ``hostnames`` gives the node. Skip empty names."""
        for preference in self.get_option("hostnames"):
            if preference in _FIELDS:
                name = _FIELDS[preference](node)
            else:
                try:
                    name = self._compose(preference, self._variables(node))
                except Exception as exc:
                    # A template can raise any exception, because the filters in the template can.
                    if self.get_option("strict"):
                        text = "%shostnames: %s: %s" % (_ME, preference, clip(str(exc), 400))
                        raise AnsibleParserError(text) from exc
                    name = None
            if name not in (None, ""):
                yield str(name) if isinstance(name, (str, int)) else name

    def _check_known(self, name: str, node: dict[str, t.Any]) -> None:
        """Raise ``NameRefused`` if an earlier inventory source has a host ``name`` whose address differs from that of
        ``node``.
        """
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
        if variables["xdp_gossip"]["state"] == "agent_down":
            self.inventory.add_host(name, self.inventory.add_group(AGENT_DOWN))
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
