# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the attributes that all modules have in common. A module documents an attribute itself only if the
attribute's value for this module differs from the value in this fragment.

If two fragments define the same key, Ansible uses the value from the fragment that a module lists first. Modules that
change nothing list READ_ONLY first, so that Ansible uses the values of READ_ONLY and not the common values.
"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  idempotent:
    description: A second run with the same options changes nothing, unless the fleet or the host has changed since.
    support: full
  platform:
    description: Where the module can run.
    support: full
    platforms: posix
"""

    READ_ONLY = r"""
options: {}
attributes:
  check_mode:
    details: Changes nothing in either mode.
  diff_mode:
    support: N/A
    details: Changes nothing.
"""

    ACTION_GROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/xdp_gossip.fleet.xdp_gossip) in C(module_defaults) to set options for the whole collection.
    support: full
    membership:
      - xdp_gossip.fleet.xdp_gossip
"""

    ON_CONTROLLER = r"""
options: {}
attributes:
  action:
    description: Runs on the controller, without a connection to a host.
    support: full
"""
