#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_sealing_key
short_description: Store the public key of a host for sealed documents on the controller
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Asks the agent of this host over its Unix socket for its public key, and stores the key on the controller. With this
    key, O(xdp_gossip.fleet.xdp_gossip_publish#module:sealed_for) seals documents for the host.
  - The key comes over the connection of Ansible, and not by gossip. So no member can make the controller seal documents
    for another key.
  - If the controller has another key of the host already, the task fails, unless O(replace) is set.
  - The role P(xdp_gossip.fleet.agent#role) runs this module after each deployment.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Predicts whether the key on the controller changes.
  diff_mode:
    support: none
    details: A public key tells a reader nothing.
options:
  socket:
    description: Unix socket of the agent.
    type: path
    default: /run/xdp-gossip/api.sock
  host:
    description: Name of the host, as in the inventory.
    type: str
    required: true
  directory:
    description: Directory on the controller for the keys, as
      O(xdp_gossip.fleet.xdp_gossip_publish#module:sealing_dir).
    type: path
    required: true
  replace:
    description: Whether to replace another key of the host, for example after the host was rebuilt.
    type: bool
    default: false
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_publish
"""

EXAMPLES = r"""
- name: Accept the key of a host that was rebuilt
  xdp_gossip.fleet.xdp_gossip_sealing_key:
    host: "{{ inventory_hostname }}"
    directory: ~/.xdp-gossip/default/sealing
    replace: true
"""

RETURN = r"""
public_key:
  description: The public key of the host, as C(xdp-gossip sealing-key) prints it.
  returned: success
  type: str
  sample: xdp-gossip-x25519 hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= web1
fingerprint:
  description: Fingerprint of the public key.
  returned: success
  type: str
  sample: SHA256:9Jn6v6zKQGxqzJjKZ0V1GgJ9CEbSHrQKx4mRJrqcXqM
replaced:
  description: Whether the key takes the place of another key of the host.
  returned: success
  type: bool
path:
  description: File on the controller with the key.
  returned: success
  type: str
  sample: /home/ops/.xdp-gossip/default/sealing/hosts/web1.pub
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import Unanswered, ask


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/xdp-gossip/api.sock"},
            "host": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True, "no_log": False},
            "replace": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        found = ask(module.params["socket"], "/v1/sealing-key")
    except Unanswered as exc:
        module.fail_json(
            msg="%s: the agent gave no public key; it has one if it runs, has state_dir, and wire is native" % exc
        )
    # The action plugin of this module stores the key on the controller.
    module.exit_json(changed=False, public_key=found.get("public_key"))


if __name__ == "__main__":
    main()
