# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_secrets
short_description: Inspect or create the secrets of a fleet on the controller
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Part of the role P(xdp_gossip.fleet.agent#role), which calls it for each host.
  - A fleet's secrets are files on the controller that their owner alone may read, or that ansible-vault has encrypted.
    They are the secret key, the API token, and a certificate authority, which signs a certificate for each host.
  - Never returns the content of a file.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.on_controller
attributes:
  check_mode:
    details: With O(state=present) it says that it would make them, and makes none.
  diff_mode:
    support: none
    details: The content is secret.
options:
  cluster:
    description: Name of the cluster, which a new authority is named after.
    type: str
    required: true
  directory:
    description: Directory of the secrets.
    type: path
    required: true
  secret_key_file:
    description: File of the secret key. Not given where the host takes none from a file.
    type: path
  api_token_file:
    description: File of the API token. Not given where the host takes none from a file.
    type: path
  key_files:
    description: Files of key slots. They are looked at and never made.
    type: list
    elements: path
    default: []
  ca_cert_file:
    description: File of the authority's certificate. Not given where the host takes no certificate from it.
    type: path
  ca_key_file:
    description: File of the authority's key.
    type: path
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  names:
    description: Addresses and DNS names that the host's certificate holds for.
    type: list
    elements: str
    default: []
  fleet:
    description: All hosts of the fleet, by their names in the inventory.
    type: list
    elements: str
    default: []
  state:
    description: V(query) only looks, V(present) makes what is missing.
    type: str
    choices: [query, present]
    default: query
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_preflight
"""

EXAMPLES = r"""
- name: Look whether the controller has the fleet's secrets
  xdp_gossip.fleet.xdp_gossip_secrets:
    cluster: default
    directory: ~/.xdp-gossip/default
    secret_key_file: ~/.xdp-gossip/default/secret.key
    host: "{{ inventory_hostname }}"
  register: secrets
"""

RETURN = r"""
missing:
  description: The fleet's files that are not there.
  type: list
  elements: str
  returned: success
problems:
  description: What is wrong with files that are there, a sentence each.
  type: list
  elements: str
  returned: success
certificate:
  description: Path of the host's certificate, empty where it takes none from the authority.
  type: str
  returned: success
key:
  description: Path of the key of the host's certificate.
  type: str
  returned: success
renew:
  description: Why the host's certificate has to be made, empty when it does not.
  type: str
  returned: success
strangers:
  description: The hosts that have been deployed with these secrets, when none of them is of O(fleet).
  type: list
  elements: str
  returned: success
fresh:
  description: Whether the host has not been deployed with these secrets before.
  type: bool
  returned: success
made:
  description: Paths of the files that were written.
  type: list
  elements: str
  returned: success
"""
