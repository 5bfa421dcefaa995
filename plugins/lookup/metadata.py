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
  - Reads documents that were published to a fleet, from any one member. Runs on the control machine.
  - A document is data that somebody published, and is not templated.
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.connection.plugins
options:
  _terms:
    description: Names of the documents. Without any, the document V(default) is read.
    type: list
    elements: str
  default:
    description: What to return for a document that is not there. Without it, that is an error.
    type: raw
  encoding:
    description: V(utf-8) returns text, and a document that is none is an error; V(base64) returns any bytes in base64.
    type: str
    choices: [utf-8, base64]
    default: utf-8
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_publish
"""

EXAMPLES = r"""
- name: Show a document
  ansible.builtin.debug:
    msg: "{{ lookup('xdp_gossip.fleet.metadata', 'haproxy.cfg') }}"

- name: Use structured configuration, and do without it when there is none
  ansible.builtin.set_fact:
    limits: "{{ lookup('xdp_gossip.fleet.metadata', 'app/limits', default='{}') | from_json }}"

- name: Ask over the network
  ansible.builtin.debug:
    msg: "{{ lookup('xdp_gossip.fleet.metadata', 'motd', endpoints=members, token_file='~/.fleet-token') }}"
  vars:
    members: ["https://198.18.0.11:8001", "https://198.18.0.12:8001"]
"""

RETURN = r"""
_raw:
  description: The content of each document, in the order of the terms.
  type: list
  elements: raw
"""

import base64
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import Client, ClientError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, check_key
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError, Settings


class LookupModule(LookupBase):
    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[t.Any]:
        """Read the documents named by ``terms``. Raises ``AnsibleLookupError``."""
        self.set_options(var_options=variables, direct=kwargs)
        default, encoding = self.get_option("default"), self.get_option("encoding")
        keys = list(terms) or ["default"]
        try:
            fleet = Fleet(Client(Settings(self.get_options()), log=self._display.vvv))
            return [self._read(fleet, key, default, encoding) for key in keys]
        except ClientError as exc:
            raise AnsibleLookupError("xdp_gossip.fleet.metadata: %s" % exc) from exc

    def _read(self, fleet: Fleet, key: t.Any, default: t.Any, encoding: str) -> t.Any:
        if not isinstance(key, str):
            raise ConfigError("expected the name of a document as text, got %s" % type(key).__name__)
        found = fleet.read(check_key(key))
        if found is None:
            if default is None:
                raise ConfigError("%s has no document %r (set default to do without)" % (fleet.endpoint, key))
            return default
        value = found[1]
        if encoding == "base64":
            return base64.b64encode(value).decode("ascii")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError("document %r is not UTF-8 text (use encoding='base64')" % key) from None
