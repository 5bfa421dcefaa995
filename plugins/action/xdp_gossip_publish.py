# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import SOURCES, read_source, suffix_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish, document_spec, wishes_of
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._local_files import LocalFiles
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signed_publish import SignedPublish, plain
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signing_key import SigningError, SigningKey

#: Options for the controller, which the module on the target host does not get.
_SIGNING = ("sign_key", "sign_with", "cluster")

#: Variable of the role agent with the name of the cluster.
_CLUSTER = "xdp_gossip_agent_cluster"


class ActionModule(LocalFiles):
    MODULE = "xdp_gossip.fleet.xdp_gossip_publish"

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; with ``sign_key``, sign the documents on the controller. Raises ``AnsibleActionFail``."""
        if self._task.args.get("signing") is not None:
            raise AnsibleActionFail("signing: expected only the options of a task, such as sign_key")
        if self._task.args.get("sign_key") is None:
            return super().run(tmp, task_vars)
        # An asynchronous task could not return to the controller for the signature.
        self._supports_async = False
        self._supports_check_mode = True
        ActionBase.run(self, tmp, task_vars)
        try:
            return self._sign(plain(self._task.args), task_vars or {})
        except (SigningError, ConfigError) as exc:
            raise AnsibleActionFail(str(exc)) from exc
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _sign(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        wishes = self._wishes(arguments)
        cluster = self._cluster(arguments.get("cluster"), task_vars)
        how, named = arguments.get("sign_with") or "file", str(arguments["sign_key"])
        if how not in ("file", "agent"):
            raise ConfigError("sign_with: expected file or agent, got %r" % how)

        given = dict(arguments)
        for name in _SIGNING:
            arguments.pop(name, None)
        with self._file("sign_key", named) as path:
            key = SigningKey(path, named, how == "agent")
            signed = SignedPublish(key, cluster, wishes, str(task_vars.get("inventory_hostname", "")))
            self._hand_over(arguments, wishes)
            result = signed.run(lambda signing: self._module(dict(arguments, signing=signing), task_vars))
        shown = (result.get("invocation") or {}).get("module_args") or {}
        shown.pop("signing", None)
        shown.update({name: given[name] for name in ("src",) + _SIGNING if given.get(name) is not None})
        return result

    def _module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        result: dict[str, t.Any] = self._execute_module(
            module_name=self.MODULE, module_args=arguments, task_vars=task_vars
        )
        return result

    def _wishes(self, arguments: dict[str, t.Any]) -> list[Wish]:
        """Check the options of documents, and read all contents on the controller. Raises ``ConfigError``."""
        if arguments.get("rollback_to") is not None:
            raise ConfigError(
                "rollback_to: expected no rollback with sign_key, because a member would say what is signed: publish "
                "the former content with content, value or src"
            )
        if arguments.get("atomic") == "never":
            raise ConfigError(
                "atomic: expected auto or required with sign_key, because one signature covers all documents"
            )
        spec = dict(document_spec(), key={"type": "str"}, documents={"type": "dict"})
        spec["state"] = dict(spec["state"], default="present")
        own = {name: value for name, value in arguments.items() if name in spec}
        checked = ArgumentSpecValidator(
            spec,
            mutually_exclusive=[SOURCES] + [("documents", name) for name in ("key", "if_version") + SOURCES],
            required_if=[("state", "present", ("documents",) + SOURCES, True)],
        ).validate(own)
        if checked.error_messages:
            raise ConfigError("; ".join(checked.error_messages))
        params = checked.validated_parameters
        if params["documents"] is not None:
            arguments["documents"] = {
                key: dict(entry or {}) if isinstance(entry, (dict, type(None))) else entry
                for key, entry in params["documents"].items()
            }
        entries = list((arguments.get("documents") or {}).values())
        if any(
            isinstance(each, dict) and boolean(each.get("remote_src"), strict=False) for each in [arguments] + entries
        ):
            raise ConfigError(
                "remote_src: expected false with sign_key, because the target host would say what is signed: copy the "
                "file to the controller, and publish it with src"
            )
        return wishes_of(params, self._read)

    def _cluster(self, given: t.Any, task_vars: dict[str, t.Any]) -> str:
        if given is None and _CLUSTER in (task_vars.get("ansible_facts") or {}):
            raise ConfigError(
                "cluster: expected the name of the cluster from the controller, got %s from the facts of the host: set "
                "cluster" % _CLUSTER
            )
        found = self._templar.template(task_vars.get(_CLUSTER)) if given is None else given
        if not isinstance(found, (str, int)) or isinstance(found, bool) or not str(found):
            raise ConfigError(
                "cluster: expected the name of the fleet's cluster with sign_key, because the signature is for one "
                "cluster only: set cluster, or %s in the inventory" % _CLUSTER
            )
        return str(plain(found))

    @contextlib.contextmanager
    def _file(self, option: str, source: str) -> t.Iterator[str]:
        """Find a file on the controller, decrypt it if Ansible Vault has encrypted it, and yield its path.

        A decrypted copy is readable only for the user of Ansible, and is removed in every case.
        Raises ``AnsibleActionFail``.
        """
        try:
            real = self._loader.get_real_file(self._find(source))
        except (AnsibleError, OSError) as exc:
            raise AnsibleActionFail("%s %s: %s" % (option, source, exc)) from exc
        try:
            yield real
        finally:
            self._loader.cleanup_tmp_file(real)

    def _read(self, source: str) -> bytes:
        with self._file("src", source) as path:
            return read_source(path)

    def _hand_over(self, arguments: dict[str, t.Any], wishes: list[Wish]) -> None:
        """Replace contents and types in ``arguments`` by those that the controller signs."""
        copies = []
        for number, wish in enumerate(wishes):
            documents = arguments.get("documents")
            options = arguments if documents is None else documents[wish.key]
            source = options.get("src")
            for name in SOURCES + ("remote_src",):
                options.pop(name, None)
            if wish.value is None:
                continue
            options["content_type"] = wish.content_type
            if source is None:
                options["content"] = wish.value.decode("utf-8")
                continue
            if not self._connection._shell.tmpdir:
                self._make_tmp_path()
            name = "document%d%s" % (number, suffix_of(source))
            target = self._connection._shell.join_path(self._connection._shell.tmpdir, name)
            self._transfer_data(target, wish.value)
            copies.append(target)
            options.update(src=target, remote_src=True)
        if copies:
            self._fixup_perms2([self._connection._shell.tmpdir] + copies)
