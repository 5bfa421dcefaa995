# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as fleet_secrets
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _rotation
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._controller_files import ControllerAction, absolute


class ActionModule(ControllerAction):
    """Action that runs in Ansible's own process on the controller, without a connection to any host."""

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Take one step of a rotation, if it is the next one. Raises ``AnsibleActionFail``."""
        super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "path", "required": True},
                "cluster": {"type": "str", "default": ""},
                "secret_key_file": {"type": "path", "no_log": False},
                "api_token_file": {"type": "path", "no_log": False},
                "token_name": {"type": "str", "no_log": False},
                "token_hash": {"type": "str", "default": "", "no_log": False},
                "new_file": {"type": "path"},
                "step": {
                    "type": "str",
                    "choices": ["query", "begin", "activate", "retire", "finish"],
                    "default": "query",
                },
            },
            mutually_exclusive=[["secret_key_file", "api_token_file", "token_name"]],
            required_one_of=[["secret_key_file", "api_token_file", "token_name"]],
        )[1]
        try:
            return self._step(options)
        except fleet_secrets.SecretsError as exc:
            raise AnsibleActionFail(str(exc)) from None

    def _step(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        directory, step = absolute(options["directory"]), options["step"]
        writes = step != "query" and not self._task.check_mode
        if writes:
            _rotation.Run(directory, os.getppid()).take()
        if options["token_name"]:
            return self._named(directory, options, writes)
        path = absolute(options["secret_key_file"] or options["api_token_file"])
        told = fleet_secrets.unfit(path, self.read)
        if told:
            raise AnsibleActionFail(told[0])
        if options["secret_key_file"]:
            rotation = _rotation.key_rotation(path, directory, options["cluster"], self.read)
            make = fleet_secrets.new_key
        else:
            rotation = _rotation.token_rotation(path, directory, self.read)
            make = fleet_secrets.new_token
        before = rotation.phase
        if writes and step == "begin":
            rotation.begin(make, absolute(options["new_file"]), self.encrypt)
        elif writes:
            {"activate": rotation.activate, "retire": rotation.retire, "finish": rotation.finish}[step]()
        return dict(_told(rotation), changed=rotation.phase != before)

    def _named(self, directory: str, options: dict[str, t.Any], writes: bool) -> dict[str, t.Any]:
        named = _rotation.NamedToken(directory, options["token_name"], self.read)
        before = named.next_hash()
        if writes and options["step"] == "begin" and not before:
            named.begin(absolute(options["new_file"]))
        elif writes and options["step"] == "finish":
            named.finish(options["token_hash"])
        found = named.next_hash()
        present = options["token_hash"]
        phase = _rotation.NONE if not found else _rotation.RETIRE if found == present else _rotation.STAGE
        return {
            "changed": found != before,
            "phase": phase,
            "before": present,
            "after": found,
            "known": [one for one in (present, found) if one],
            "path": named.path,
        }


def _told(rotation: _rotation.Rotation) -> dict[str, t.Any]:
    """Return what a result says about the rotation."""
    held = {one.state: one.fingerprint for one in rotation.held()}
    retired, phase = rotation.retired(), rotation.phase
    before = held.get("retiring") or retired or held["active"]
    after = held.get("staged") or ("" if phase == _rotation.NONE else held["active"])
    known = [*held.values(), *([retired] if retired else []), *rotation.former()]
    return {
        "phase": phase,
        "before": before,
        "after": after,
        "known": list(dict.fromkeys(known)),
        "path": rotation.path + ".next",
    }
