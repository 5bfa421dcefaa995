# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_rotation
short_description: Start, continue or end the rotation of a secret on the controller
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - This module is part of the role P(xdp_gossip.fleet.agent#role) and changes only files on the controller, beside the
    file of the secret. The files say in which phase a rotation is, so that an interrupted run can be continued, and
    that a deployment in between gives the hosts the right secrets.
  - Each step does nothing unless the rotation is in the phase before it. So a run repeats all steps.
  - The module never returns the content of a secret.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.on_controller
attributes:
  check_mode:
    details: In check mode, the module writes no file.
  diff_mode:
    support: none
    details: The content is secret.
options:
  directory:
    description: Directory of the secrets.
    type: path
    required: true
  cluster:
    description: Name of the cluster. Required with O(secret_key_file).
    type: str
    default: ""
  secret_key_file:
    description: File of the secret key to rotate.
    type: path
  api_token_file:
    description: File of the API token to rotate.
    type: path
  token_name:
    description: Name of the token of C(api.tokens) to rotate. Its next token is the file C(tokens/NAME.next) in
      O(directory).
    type: str
  token_hash:
    description: Hash of the token O(token_name) in the inventory.
    type: str
    default: ""
  new_file:
    description: File with the next secret. If O(new_file) is empty, O(step=begin) generates one.
    type: path
  step:
    description:
      - V(query) changes nothing. V(begin) writes the next secret. V(activate) makes the next secret the present one.
        V(retire) ends the time in which hosts have both. V(finish) deletes the former secret.
      - All steps other than V(query) fail while another run rotates a secret of the same fleet.
    type: str
    choices: [query, begin, activate, retire, finish]
    default: query
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_secrets
"""

EXAMPLES = r"""
- name: How far is the rotation?
  xdp_gossip.fleet.xdp_gossip_rotation:
    directory: ~/.xdp-gossip/default
    cluster: default
    secret_key_file: ~/.xdp-gossip/default/secret.key
  register: rotation
"""

RETURN = r"""
phase:
  description:
    - V(none) if there is no rotation. V(stage) while hosts get the next secret. V(activate) while hosts change to it.
      V(retire) while hosts lose the former secret.
  type: str
  returned: success
  sample: stage
before:
  description: Fingerprint of the secret before the rotation. For a token, its hash.
  type: str
  returned: success
  sample: 1f0c2a4be5d69788
after:
  description: Fingerprint of the secret after the rotation; empty if there is no rotation. For a token, its hash.
  type: str
  returned: success
  sample: 9a3b5c7d1e2f4a6b
known:
  description: Fingerprints of these secrets and of earlier ones.
  type: list
  elements: str
  returned: success
path:
  description: File with the next secret, or where it would be.
  type: str
  returned: success
"""
