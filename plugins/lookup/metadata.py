# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: metadata
short_description: Read configuration documents of a fleet
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Reads documents of a fleet from one member. The lookup can use any member of the fleet. The lookup runs on the
    controller.
  - Documents are untrusted data, so Ansible does not evaluate templates in them.
  - A missing document is an error unless O(default) is given. If no member answers, the lookup fails, even with
    O(default).
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.connection.plugins
options:
  _terms:
    description:
      - Names of the documents. Without terms, the lookup reads the document V(default).
      - With O(prefix), the lookup reads all documents whose name begins with a term. With O(prefix) and no terms, the
        lookup reads all documents.
    type: list
    elements: str
  prefix:
    description:
      - Treat each term as a prefix, and read all documents whose names begin with a term. For each term, the lookup
        returns one dictionary of full names and contents, sorted by name.
      - With O(prefix), if no name begins with a term, the lookup treats the term like a missing document.
    type: bool
    default: false
  strip_prefix:
    description: With O(prefix), remove the term from the beginning of the names in the result.
    type: bool
    default: false
  default:
    description: Value to return for a missing document. Without O(default), a missing document is an error.
    type: raw
  version:
    description:
      - Version of the document to read instead of the current version. M(xdp_gossip.fleet.xdp_gossip_info) lists the
        versions. The lookup fails if the member does not have the version in O(version), even with O(default).
      - Mutually exclusive with O(prefix).
    type: str
  parse:
    description:
      - Parse the content and return data instead of text. V(auto) parses documents of type V(json) or V(yaml), and
        returns other documents as text. If the content cannot be parsed, the lookup fails.
      - V(yaml) accepts one YAML document without tags and aliases, with at most 16 levels and only data that JSON can
        express. Dates stay text. V(json) has the same limits as V(yaml). If the content is only white space, the lookup
        returns V(none).
    type: str
    choices: [json, yaml, auto]
  encoding:
    description:
      - V(utf-8) returns text, and causes an error if the document is not UTF-8 text. V(base64) returns any content in
        base64, and cannot be combined with O(parse).
    type: str
    choices: [utf-8, base64]
    default: utf-8
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_publish
"""

EXAMPLES = r"""
- name: Publish what is read below
  xdp_gossip.fleet.xdp_gossip_publish:
    documents:
      motd:
        content: Welcome
      app/limits:
        value: {requests_per_second: 200}
      app/features:
        value: {search: true}

- name: Show a document
  ansible.builtin.debug:
    msg: "{{ lookup('xdp_gossip.fleet.metadata', 'motd') }}"

- name: Use structured configuration, and do without it when there is none
  ansible.builtin.set_fact:
    limits: "{{ lookup('xdp_gossip.fleet.metadata', 'app/limits', parse='json', default={}) }}"

- name: Read everything below app/ at once
  ansible.builtin.debug:
    msg: "{{ settings['app/limits'].requests_per_second }} requests, search: {{ settings['app/features'].search }}"
  vars:
    settings: "{{ lookup('xdp_gossip.fleet.metadata', 'app/', prefix=true, parse='auto') }}"

- name: Ask over the network
  ansible.builtin.debug:
    msg: "{{ lookup('xdp_gossip.fleet.metadata', 'motd', endpoints=members, ca_path=ca, token_file=token) }}"
  vars:
    members: ["https://198.18.0.11:8001", "https://198.18.0.12:8001"]
    ca: /etc/ssl/fleet-ca.pem
    token: ~/.config/xdp-gossip/token
"""

RETURN = r"""
_raw:
  description:
    - The content of the document for each term, in the order of the terms. With O(prefix), each term yields a
      dictionary of names and contents.
  type: list
  elements: raw
"""

import base64
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import Client
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, check_key
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import (
    OPTIONS,
    ClientError,
    ConfigError,
    Settings,
)
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._private_data import parse_private_data
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._templates import untrusted

#: Ansible variables that set the connection options (see the documentation fragment ``connection``).
_VARIABLES = ["xdp_gossip_" + option for option in OPTIONS]


class LookupModule(LookupBase):
    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[t.Any]:
        """Read the documents named by ``terms``. Raises ``AnsibleLookupError``."""
        self.set_options(var_options=self._rendered(variables or {}), direct=kwargs)
        self._has_default = "default" in kwargs
        try:
            if self.get_option("parse") and self.get_option("encoding") != "utf-8":
                raise ConfigError("parse: expected encoding utf-8 with it, got %s" % self.get_option("encoding"))
            names = [_checked(term) for term in terms]
            fleet = Fleet(Client(Settings(self.get_options()), log=self._warn))
            version = self.get_option("version")
            if version is not None and (self.get_option("prefix") or len(names) > 1):
                raise ConfigError("version: expected at most one document name, and prefix not set")
            if version is not None:
                key = check_key((names or ["default"])[0])
                return [self._content(key, *fleet.version(key, version))]
            if self.get_option("prefix"):
                return [self._read_all(fleet, prefix) for prefix in names or [""]]
            return [self._read(fleet, check_key(key)) for key in names or ["default"]]
        except ClientError as exc:
            raise AnsibleLookupError("xdp_gossip.fleet.metadata: %s" % exc) from exc

    def _rendered(self, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return the variables that set connection options, after rendering the templates in these variables. Ansible
        passes variables to lookups without rendering them.
        """
        ours = {name: variables[name] for name in _VARIABLES if name in variables}
        return {name: self._templar.template(value) for name, value in ours.items()} if self._templar else ours

    def _warn(self, text: str) -> None:
        self._display.warning("xdp_gossip.fleet.metadata: %s" % text)

    def _read(self, fleet: Fleet, key: str) -> t.Any:
        found = fleet.read(key)
        return self._or_default("document %r" % key, fleet) if found is None else self._content(key, *found)

    def _read_all(self, fleet: Fleet, prefix: str) -> t.Any:
        listed = fleet.documents(prefix)["documents"]
        # The answer is untrusted, so skip names that do not begin with the prefix.
        keys = sorted({str(entry["key"]) for entry in listed if str(entry["key"]).startswith(prefix)})
        contents = {}
        for key in keys:
            found = fleet.read(check_key(key))
            if found is not None:  # ``found`` is None if the document was deleted after the list was read
                name = key[len(prefix) :] if self.get_option("strip_prefix") else key
                contents[name] = self._content(key, *found)
        return contents or self._or_default("document that begins with %r" % prefix, fleet)

    def _or_default(self, what: str, fleet: Fleet) -> t.Any:
        if not self._has_default:
            raise ConfigError("%s has no %s (set default to do without)" % (fleet.endpoint, what))
        return self.get_option("default")

    def _content(self, key: str, document: dict[str, t.Any], value: bytes) -> t.Any:
        if self.get_option("encoding") == "base64":
            return base64.b64encode(value).decode("ascii")
        try:
            content: t.Any = value.decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError("document %r is not UTF-8 text (use encoding='base64')" % key) from None
        form = self.get_option("parse")
        if form == "auto":
            form = document["content_type"] if document["content_type"] in ("json", "yaml") else None
        if form:
            try:
                content = parse_private_data(content, form)
            except ValueError as exc:
                raise ConfigError("document %r: expected %s: %s" % (key, form, exc)) from None
        # Document contents must never become templates, even if the configuration trusts lookups.
        return untrusted({"content": content})["content"]


def _checked(term: t.Any) -> str:
    if isinstance(term, int) and not isinstance(term, bool):
        return str(term)  # convert a number to text, as Ansible does for an option of type str
    if not isinstance(term, str):
        raise ConfigError("expected names of documents as text, got %s" % clip(type(term).__name__))
    return term
