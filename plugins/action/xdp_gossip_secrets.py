# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as fleet_secrets
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _rotation
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._controller_files import ControllerAction, absolute


class ActionModule(ControllerAction):
    """Action that runs in Ansible's own process on the controller, without a connection to any host."""

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
            directory=absolute(options["directory"]),
            secret=absolute(options["secret_key_file"]),
            token=absolute(options["api_token_file"]),
            keys=[absolute(path) for path in options["key_files"]],
            ca_cert=absolute(options["ca_cert_file"]),
            ca_key=absolute(options["ca_key_file"]),
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
        made = fleet_secrets.make(wanted, self.read, now)
        fleet_secrets.remember(wanted)
        return made

    def _found(
        self, wanted: fleet_secrets.Wanted, fleet: list[str], now: datetime.datetime, made: list[str] | None
    ) -> dict[str, t.Any]:
        told = fleet_secrets.problems(wanted, self.read)
        missing = fleet_secrets.missing(wanted)
        renew = "" if told else fleet_secrets.stale(wanted, self.read, now)
        other = _rotation.Run(wanted.directory, os.getppid()).other()
        if other:
            told.append(
                "the process %d on this controller is rotating a secret of this fleet: expected none; wait until it "
                "has ended" % other
            )
        rotating = {"held": [], "former": [], "token_hashes": [], "next_tokens": {}} if told else self._rotating(wanted)
        return {
            **rotating,
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

    def _rotating(self, wanted: fleet_secrets.Wanted) -> dict[str, t.Any]:
        """Return the secrets that hosts must have in addition, because a rotation is in progress."""
        keys: list[_rotation.Held] = []
        former: list[str] = []
        if wanted.secret and os.path.exists(wanted.secret):
            rotation = _rotation.key_rotation(wanted.secret, wanted.directory, wanted.cluster, self.read)
            former = [*rotation.former(), *filter(None, [rotation.retired()])]
            # scrypt takes 0.3 seconds for a passphrase, so its fingerprint is computed only if it is needed.
            keys = rotation.held() if rotation.files else []
        hashes: list[str] = []
        if wanted.token and os.path.exists(wanted.token):
            # Hosts accept both tokens by their hashes, so that the file on a host can be replaced at any moment.
            both = _rotation.token_rotation(wanted.token, wanted.directory, self.read).held()
            hashes = [one.fingerprint for one in both] if len(both) > 1 else []
        return {
            "held": [one._asdict() for one in keys],
            "former": former,
            "token_hashes": hashes,
            "next_tokens": _rotation.next_tokens(wanted.directory, self.read),
        }
