# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: the base class of the modules that connect to agents. Python 3.8 or later."""

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

#: Text that replaces sensitive content. Ansible itself uses this text for options with ``no_log``.
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"

#: What the user can do about an error of the agent, by the error's code.
_REMEDIES = {
    "signature_required": "; let the controller sign the document: set sign_key and cluster of xdp_gossip_publish",
}

#: Options whose value is the content of a document.
_CONTENTS = ("content", "value")


class FleetModule(AnsibleModule):
    """A module that has the connection options. The result of the module names the endpoint that answered, and the
    endpoints that failed.

    ``argument_spec`` contains the module's own options. If a module's option ``sensitive`` is true, no result or error
    contains the values of ``content``, ``value`` and ``documents``.
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
        """Return the value of the environment variable ``variable`` as the default of the option token or the option
        token_file.

        Raises ``AnsibleFallbackNotFound`` if the task sets the option ``other``, because a module accepts only one of
        the options token and token_file.
        """
        if self.params.get(other) is not None:
            raise AnsibleFallbackNotFound
        return str(env_fallback(variable))

    @property
    def sensitive(self) -> bool:
        """Return whether to hide the contents of documents. Before Ansible has checked the options, the result is true
        unless the option ``sensitive`` has one of the values that Ansible accepts as false.
        """
        wanted = (getattr(self, "params", None) or {}).get("sensitive")
        if isinstance(wanted, str):
            wanted = wanted.strip().lower()
        return wanted is not None and not (isinstance(wanted, (str, int, float)) and wanted in BOOLEANS_FALSE)

    def open_fleet(self, first_only: bool = False) -> Fleet:
        """Return the fleet that the connection options describe; with ``first_only``, use only the first endpoint.

        If an endpoint fails, the module shows a warning, unless an error already contains the failure. Raises
        ``ConfigError``.
        """
        settings = Settings(self.params)
        if first_only:
            del settings.endpoints[1:]
        self._fleet = Fleet(Client(settings, log=self.warn))
        return self._fleet

    def succeed(self, **results: t.Any) -> t.NoReturn:
        """End the module with ``results``, the endpoint that answered, and the endpoints that failed."""
        self.exit_json(**dict(results, **self._connection()))

    def fail(self, problem: ClientError | str, **results: t.Any) -> t.NoReturn:
        """End the module with a failure. The result contains the error message in ``msg``. If a member caused the
        failure, the result also has the dictionary ``error``.
        """
        message = str(problem)
        if isinstance(problem, Unreachable):
            code = "answer_lost" if problem.maybe_applied else "no_member_answered"
            results["error"] = {"code": code, "status": None, "details": {}}
        elif isinstance(problem, ApiError):
            results["error"] = {"code": problem.code, "status": problem.status, "details": problem.details}
            if self.sensitive:
                # The message and details of a member's error may repeat parts of the request.
                message = problem.summary
                results["error"]["details"] = {}
            message += _REMEDIES.get(problem.code, "")
        self.fail_json(msg=message, **dict(results, **self._connection()))

    def _connection(self) -> dict[str, t.Any]:
        if self._fleet is None:
            return {}
        return {"endpoint": self._fleet.endpoint, "failed_endpoints": self._fleet.client.attempts}

    def exit_json(self, **kwargs: t.Any) -> t.NoReturn:
        """End the module like ``AnsibleModule.exit_json``, but without sensitive arguments in the result."""
        super().exit_json(**self._redacted(kwargs))
        raise AssertionError("exit_json ends the process")

    def fail_json(self, msg: str, **kwargs: t.Any) -> t.NoReturn:
        """End the module like ``AnsibleModule.fail_json``, but without sensitive arguments in the result.

        ``AnsibleModule`` itself also calls this method if options are invalid.
        """
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
                # Also hide unknown options, because the user may have misspelt the name of an option with content.
                value = value if value is None else HIDDEN
            arguments[name] = value
        return dict(results, invocation={"module_args": arguments})


def _hide_contents(entry: t.Any) -> t.Any:
    """Return a copy of an entry of ``documents``. The copy hides all values, except the values of options that never
    contain secrets.
    """
    shown = ("state", "src", "remote_src", "expires", "content_type", "if_version", "author", "comment")
    if not isinstance(entry, dict):
        return entry if entry is None else HIDDEN
    return {name: value if value is None or name in shown else HIDDEN for name, value in entry.items()}
