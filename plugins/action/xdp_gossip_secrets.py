# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as fleet_secrets


class ActionModule(ActionBase):
    """Action that runs in Ansible's own process on the controller, without a connection to any host."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Check the fleet's secrets. With ``state=present``, also create the secrets that are missing. Raises
        ``AnsibleActionFail``.
        """
        super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            argument_spec={
                "cluster": {"type": "str", "required": True},
                "directory": {"type": "path", "required": True},
                "secret_key_file": {"type": "path", "no_log": False},
                "api_token_file": {"type": "path", "no_log": False},
                "key_files": {"type": "list", "elements": "path", "default": [], "no_log": False},
                "ca_cert_file": {"type": "path"},
                "ca_key_file": {"type": "path", "no_log": False},
                "host": {"type": "str", "required": True},
                "names": {"type": "list", "elements": "str", "default": []},
                "fleet": {"type": "list", "elements": "str", "default": []},
                "state": {"type": "str", "choices": ["query", "present"], "default": "query"},
            },
            required_together=[["ca_cert_file", "ca_key_file"]],
        )[1]
        wanted = fleet_secrets.Wanted(
            cluster=options["cluster"],
            directory=_absolute(options["directory"]),
            secret=_absolute(options["secret_key_file"]),
            token=_absolute(options["api_token_file"]),
            keys=[_absolute(path) for path in options["key_files"]],
            ca_cert=_absolute(options["ca_cert_file"]),
            ca_key=_absolute(options["ca_key_file"]),
            host=options["host"],
            names=options["names"],
        )
        now = datetime.datetime.now(datetime.timezone.utc)
        try:
            made = None
            if options["state"] == "present":
                made = [] if self._task.check_mode else self._make(wanted, now)
            return self._found(wanted, options["fleet"], now, made)
        except fleet_secrets.SecretsError as exc:
            raise AnsibleActionFail(str(exc)) from None

    def _make(self, wanted: fleet_secrets.Wanted, now: datetime.datetime) -> list[str]:
        made = fleet_secrets.make(wanted, self._read, now)
        fleet_secrets.remember(wanted)
        return made

    def _found(
        self, wanted: fleet_secrets.Wanted, fleet: list[str], now: datetime.datetime, made: list[str] | None
    ) -> dict[str, t.Any]:
        told = fleet_secrets.problems(wanted, self._read)
        missing = fleet_secrets.missing(wanted)
        renew = "" if told else fleet_secrets.stale(wanted, self._read, now)
        return {
            # In check mode, the files that the action would create are still missing.
            "changed": bool(made) or (made is not None and bool(missing or renew)),
            "missing": missing,
            "problems": told,
            "certificate": wanted.certificate if wanted.ca_cert else "",
            "key": wanted.key if wanted.ca_cert else "",
            "renew": renew,
            "fresh": not fleet_secrets.remembered(wanted),
            "strangers": fleet_secrets.strangers(wanted, fleet),
            "made": made or [],
        }

    def _read(self, path: str) -> bytes:
        """Return the content of a file on the controller, decrypted if ansible-vault has encrypted it."""
        real = self._loader.get_real_file(path)
        try:
            with open(real, "rb") as stream:
                return stream.read()
        finally:
            self._loader.cleanup_tmp_file(real)


def _absolute(path: str | None) -> str:
    return os.path.realpath(os.path.expanduser(path)) if path else ""
