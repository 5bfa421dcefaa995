# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing import PublicKey, SealingError
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing_keys import SealingKeys, decoded, public_line


class ActionModule(ActionBase):
    """Action that runs the module on the host, and stores the key that the module returns on the controller."""

    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Store the public key of the host.

        Faults are returned and not raised: ``failed_when`` of a task does not see that an action failed which raised.
        """
        super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            argument_spec={
                "socket": {"type": "path", "default": "/run/xdp-gossip/api.sock"},
                "host": {"type": "str", "required": True},
                "directory": {"type": "path", "required": True, "no_log": False},
                "replace": {"type": "bool", "default": False},
            }
        )[1]
        result: dict[str, t.Any] = self._execute_module(
            module_name="xdp_gossip.fleet.xdp_gossip_sealing_key", module_args=dict(options), task_vars=task_vars
        )
        if result.get("failed") or result.get("unreachable"):
            return result
        host = options["host"]
        raw = decoded(result.get("public_key"))
        if raw is None:
            return _failed("%s: expected the public key of the host's agent, got another answer" % host)
        keys = SealingKeys(os.path.realpath(os.path.expanduser(options["directory"])), _read)
        try:
            former = keys.get(host)
            result["changed"] = keys.pin(host, raw, options["replace"], write=not self._task.check_mode)
        except SealingError as exc:
            return _failed(str(exc))
        result["replaced"] = result["changed"] and former is not None
        own = PublicKey(host, raw)
        result.update(public_key=public_line(raw, host), fingerprint=own.recipient.fingerprint, path=keys.path(host))
        return result


def _failed(msg: str) -> dict[str, t.Any]:
    return {"failed": True, "changed": False, "msg": msg}


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()
