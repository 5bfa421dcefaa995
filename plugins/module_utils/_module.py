# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: what all modules have in common. Python 3.8 or later."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleFallbackNotFound, AnsibleModule, env_fallback
from ansible.module_utils.parsing.convert_bool import BOOLEANS_FALSE
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, Client, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import (
    ENVIRONMENT,
    OPTIONS,
    ClientError,
    Settings,
)

#: What a sensitive content is replaced by, as Ansible does it with options that are secret always.
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"

#: The options whose values are contents.
_CONTENTS = ("content", "value")


class FleetModule(AnsibleModule):
    """A module with the connection options, that reports endpoints and their failures in one way.

    ``argument_spec`` holds the module's own options; one named ``sensitive`` keeps what is in ``content``, ``value``
    and ``documents`` out of everything the module reports.
    """

    def __init__(self, argument_spec: dict[str, t.Any], **kwargs: t.Any) -> None:
        self._fleet: Fleet | None = None
        self._own_options = frozenset(argument_spec) | frozenset(OPTIONS)
        exclusive = [("token", "token_file")] + list(kwargs.pop("mutually_exclusive", ()))
        spec = dict(self._connection_spec(), **argument_spec)
        super().__init__(argument_spec=spec, mutually_exclusive=exclusive, supports_check_mode=True, **kwargs)

    def _connection_spec(self) -> dict[str, t.Any]:
        spec = {name: dict(option, fallback=(env_fallback, [ENVIRONMENT[name]])) for name, option in OPTIONS.items()}
        for name, other in (("token", "token_file"), ("token_file", "token")):
            spec[name]["fallback"] = (self._unless_given, [other, ENVIRONMENT[name]])
        return spec

    def _unless_given(self, other: str, variable: str) -> str:
        """A token of the environment must not stand in the way of a token file of the task, nor the reverse."""
        if self.params.get(other) is not None:
            raise AnsibleFallbackNotFound
        return str(env_fallback(variable))

    @property
    def sensitive(self) -> bool:
        """Whether contents are to be hidden. True also when that is not yet checked and not clearly false."""
        wanted = (getattr(self, "params", None) or {}).get("sensitive")
        if isinstance(wanted, str):
            wanted = wanted.strip().lower()
        return wanted is not None and not (isinstance(wanted, (str, int, float)) and wanted in BOOLEANS_FALSE)

    def open_fleet(self, first_only: bool = False) -> Fleet:
        """The fleet behind the connection options; with ``first_only`` just the first of the endpoints.

        Raises ``ConfigError``. Endpoints that fail are told as warnings, unless an error tells them.
        """
        settings = Settings(self.params)
        if first_only:
            del settings.endpoints[1:]
        self._fleet = Fleet(Client(settings, log=self.warn))
        return self._fleet

    def succeed(self, **results: t.Any) -> t.NoReturn:
        """End the module, with the member that was talked to and those that did not answer."""
        self.exit_json(**dict(results, **self._connection()))

    def fail(self, problem: ClientError | str, **results: t.Any) -> t.NoReturn:
        """End the module with what went wrong, in words and as data."""
        message = str(problem)
        if isinstance(problem, Unreachable):
            code = "answer_lost" if problem.maybe_applied else "no_member_answered"
            results["error"] = {"code": code, "status": None, "details": {}}
        elif isinstance(problem, ApiError):
            results["error"] = {"code": problem.code, "status": problem.status, "details": problem.details}
            if self.sensitive:
                # What a member says of a request that it does not like may repeat the request.
                message = problem.summary
                results["error"]["details"] = {}
        self.fail_json(msg=message, **dict(results, **self._connection()))

    def _connection(self) -> dict[str, t.Any]:
        if self._fleet is None:
            return {}
        return {"endpoint": self._fleet.endpoint, "failed_endpoints": self._fleet.client.attempts}

    def exit_json(self, **kwargs: t.Any) -> t.NoReturn:
        """As ``AnsibleModule`` does it, without sensitive arguments."""
        super().exit_json(**self._redacted(kwargs))
        raise AssertionError("exit_json ends the process")

    def fail_json(self, msg: str, **kwargs: t.Any) -> t.NoReturn:
        """Likewise; ``AnsibleModule`` itself comes here with options that are wrong."""
        super().fail_json(msg, **self._redacted(kwargs))
        raise AssertionError("fail_json ends the process")

    def _redacted(self, results: dict[str, t.Any]) -> dict[str, t.Any]:
        if not self.sensitive:
            return results
        arguments = {}
        for name, value in self.params.items():
            if name.startswith("_ansible_"):
                continue
            if name == "documents" and isinstance(value, dict):
                value = {key: _hide_contents(entry) for key, entry in value.items()}
            elif name in _CONTENTS or name == "documents" or name not in self._own_options:
                # A misspelt option may be meant to hold the content.
                value = value if value is None else HIDDEN
            arguments[name] = value
        return dict(results, invocation={"module_args": arguments})


def _hide_contents(entry: t.Any) -> t.Any:
    """One of ``documents``: known options are shown, everything else may be a content."""
    shown = ("state", "src", "remote_src", "expires", "content_type", "if_version", "author", "comment")
    if not isinstance(entry, dict):
        return entry if entry is None else HIDDEN
    return {name: value if value is None or name in shown else HIDDEN for name, value in entry.items()}
