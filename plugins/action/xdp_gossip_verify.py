# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._local_files import LocalFiles


class ActionModule(LocalFiles):
    MODULE = "xdp_gossip.fleet.xdp_gossip_verify"
