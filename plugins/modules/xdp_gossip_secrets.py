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
  - This module is part of the role P(xdp_gossip.fleet.agent#role), which runs it for each host.
  - A fleet's secrets are files on the controller. Only the owner of a file with a secret may read it, unless
    ansible-vault has encrypted the file. A fleet's secrets are the secret key, the API token, and the certificate and
    key of an authority, which signs a certificate for each host.
  - The module never returns the content of a secret.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.on_controller
attributes:
  check_mode:
    details: With O(state=present), the module reports that it would create missing files, and creates none.
  diff_mode:
    support: none
    details: The content is secret.
options:
  cluster:
    description: Name of the cluster. The name of a new certificate authority contains this name.
    type: str
    required: true
  directory:
    description: Directory of the secrets.
    type: path
    required: true
  secret_key_file:
    description: File of the secret key. Omit O(secret_key_file) if the role does not copy a secret key from a file to
      the host.
    type: path
  api_token_file:
    description: File of the API token. Omit O(api_token_file) if the role does not copy an API token from a file to the
      host.
    type: path
  key_files:
    description: Files with further keys. The module checks the files in O(key_files) and never creates them.
    type: list
    elements: path
    default: []
  ca_cert_file:
    description:
      - File of the authority's certificate. Omit O(ca_cert_file) if the host needs no certificate from the authority.
    type: path
  ca_key_file:
    description: File of the authority's private key.
    type: path
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  names:
    description: Addresses and DNS names for which the host's certificate is valid.
    type: list
    elements: str
    default: []
  fleet:
    description: Inventory names of all hosts of the fleet.
    type: list
    elements: str
    default: []
  state:
    description: With O(state=query), the module only checks files. With O(state=present), the module also creates
      missing files.
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
  description: Paths of the fleet's files that do not exist.
  type: list
  elements: str
  returned: success
problems:
  description: Problems with existing files, one sentence each.
  type: list
  elements: str
  returned: success
certificate:
  description: Path of the host's certificate. RV(certificate) is empty if the host needs no certificate from the
    authority.
  type: str
  returned: success
key:
  description: Path of the key of the host's certificate.
  type: str
  returned: success
renew:
  description: Reason why the host needs a new certificate. RV(renew) is empty if the host does not need a new
    certificate.
  type: str
  returned: success
strangers:
  description:
    - All hosts that have been deployed with these secrets, if none of them is in O(fleet). If at least one of them is
      in O(fleet), RV(strangers) is an empty list.
  type: list
  elements: str
  returned: success
fresh:
  description: Whether this is the first deployment of the host with these secrets.
  type: bool
  returned: success
held:
  description:
    - While the secret key is rotated, the keys that hosts must have. C(path) is the file on the controller, C(state) is
      V(active), V(staged) or V(retiring), and C(fingerprint) is public. Empty if there is no rotation.
  type: list
  elements: dict
  returned: success
  sample: []
former:
  description: Fingerprints of the fleet's former keys.
  type: list
  elements: str
  returned: success
token_hashes:
  description: Hashes of API tokens that hosts must accept in addition, while the API token is rotated.
  type: list
  elements: str
  returned: success
next_tokens:
  description: Name and hash of each token that replaces a token of C(api.tokens).
  type: dict
  returned: success
made:
  description: Paths of the files that were written.
  type: list
  elements: str
  returned: success
"""
