# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import SOURCES, read_source, suffix_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._expiry import seconds_until
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed import SEALED
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import OPTIONS, ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish, document_spec, wishes_of
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._controller_files import decrypted
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._local_files import LocalFiles
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealed_publish import Held, SealedPublish, held_of
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing import SealingError
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing_keys import SealingKeys
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signed_publish import SignedPublish, plain
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signing_key import SigningError, SigningKey

#: Options for the controller, which the module on the target host does not get.
_SIGNING = ("sign_key", "sign_with", "cluster")
_SEALING = ("sealed_for", "seal_for_controller", "reseal", "sealing_dir")
_CONTROLLER = _SIGNING + _SEALING
#: Options of a task with ``reseal`` that the module on the target host does not get either.
_RESEALING = ("key", "comment")
_WAITING = ("wait", "wait_for", "wait_timeout")

#: Variable of the role agent with the name of the cluster.
_CLUSTER = "xdp_gossip_agent_cluster"
#: Variable of the role agent with the directory of the fleet's secrets.
_SECRETS = "xdp_gossip_agent_secret_dir"


class ActionModule(LocalFiles):
    MODULE = "xdp_gossip.fleet.xdp_gossip_publish"

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; with ``sign_key`` and ``sealed_for``, sign and seal the documents on the controller. Raises
        ``AnsibleActionFail``.
        """
        for option, example in (("signing", "sign_key"), ("sealing", "sealed_for")):
            if self._task.args.get(option) is not None:
                raise AnsibleActionFail("%s: expected only the options of a task, such as %s" % (option, example))
        if any("sealed_for" in options and options["sealed_for"] is None for options in self._entries()):
            # Without the option, the content is published in clear text. A list may be missing by mistake.
            raise AnsibleActionFail("sealed_for: expected hosts and groups, got nothing: to leave it out, use omit")
        if not self._needs_controller():
            return super().run(tmp, task_vars)
        # An asynchronous task could not return to the controller.
        self._supports_async = False
        self._supports_check_mode = True
        ActionBase.run(self, tmp, task_vars)
        try:
            arguments = plain(self._task.args)
            if boolean(arguments.get("reseal"), strict=False):
                return self._reseal(arguments, task_vars or {})
            return self._publish(arguments, task_vars or {})
        except (SigningError, SealingError, ConfigError) as exc:
            raise AnsibleActionFail(str(exc)) from exc
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _entries(self) -> list[dict[str, t.Any]]:
        """Return the options of the task, and those of each entry of ``documents``."""
        arguments = self._task.args
        documents = arguments.get("documents")
        entries = list(documents.values()) if isinstance(documents, dict) else []
        return [entry for entry in [arguments] + entries if isinstance(entry, dict)]

    def _needs_controller(self) -> bool:
        return self._task.args.get("sign_key") is not None or any(
            entry.get(name) is not None for entry in self._entries() for name in ("sealed_for", "reseal")
        )

    def _publish(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        wishes = self._wishes(arguments)
        _refuse_no_recipients(arguments, wishes)
        given = dict(arguments)
        sealed = [wish for wish in wishes if wish.sealed_for and wish.value is not None]
        if sealed:
            self._seal(sealed, arguments, task_vars)
        for options in [arguments] + list((arguments.get("documents") or {}).values()):
            if isinstance(options, dict):
                options.pop("sealed_for", None)
        result = self._write(arguments, wishes, given, task_vars)
        shown = (result.get("invocation") or {}).get("module_args") or {}
        shown.update({name: given[name] for name in ("src",) + _CONTROLLER if given.get(name) is not None})
        return result

    def _write(
        self,
        arguments: dict[str, t.Any],
        wishes: list[Wish],
        given: dict[str, t.Any],
        task_vars: dict[str, t.Any],
    ) -> dict[str, t.Any]:
        """Let the module write the documents, with a signature if the task ``given`` has ``sign_key``."""
        for name in _CONTROLLER:
            arguments.pop(name, None)
        if given.get("sign_key") is None:
            self._hand_over(arguments, wishes)
            return self._module(arguments, task_vars)
        cluster = self._cluster(given.get("cluster"), task_vars)
        how, named = given.get("sign_with") or "file", str(given["sign_key"])
        if how not in ("file", "agent"):
            raise ConfigError("sign_with: expected file or agent, got %r" % how)
        with self._file("sign_key", named) as path:
            key = SigningKey(path, named, how == "agent")
            signed = SignedPublish(key, cluster, wishes, str(task_vars.get("inventory_hostname", "")))
            self._hand_over(arguments, wishes)
            result = signed.run(lambda signing: self._module(dict(arguments, signing=signing), task_vars))
        ((result.get("invocation") or {}).get("module_args") or {}).pop("signing", None)
        return result

    def _sealed_publish(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> SealedPublish:
        cluster = self._cluster(arguments.get("cluster"), task_vars)
        directory = arguments.get("sealing_dir")
        if directory is None:
            # A fact would be the word of a host.
            own = None if _SECRETS in (task_vars.get("ansible_facts") or {}) else task_vars.get(_SECRETS)
            secrets = "~/.xdp-gossip/%s" % cluster if own is None else str(plain(self._templar.template(own)))
            directory = os.path.join(secrets, "sealing")
        keys = SealingKeys(os.path.realpath(os.path.expanduser(str(directory))), self._decrypted)
        own_copy = arguments.get("seal_for_controller")
        for_controller = own_copy is None or bool(boolean(own_copy))
        groups = task_vars.get("groups") or {}
        return SealedPublish(cluster, keys, groups, for_controller, write=not self._task.check_mode)

    def _envelopes(
        self, arguments: dict[str, t.Any], keys: list[str] | None, task_vars: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        """Ask the module for sealed documents of the fleet. Returns its result."""
        options = {name: value for name, value in arguments.items() if name in OPTIONS}
        return self._module(dict(options, documents={}, sealing={"read": keys}), task_vars)

    def _seal(self, wishes: list[Wish], arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> None:
        """Replace the contents of ``wishes`` by envelopes. Raises ``SealingError``."""
        publish = self._sealed_publish(arguments, task_vars)
        for wish in wishes:
            publish.recipients(wish.sealed_for)  # fails before a member is asked
        keys = [wish.key for wish in wishes]
        result = self._envelopes(arguments, keys, task_vars)
        if result.get("failed"):
            raise ConfigError(str(result.get("msg")))
        held = held_of(result, keys)
        for wish in wishes:
            publish.seal(wish, held.get(wish.key))

    def _reseal(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Seal documents again for the present keys of their recipients."""
        allowed = _CONTROLLER + _RESEALING + _WAITING + tuple(OPTIONS)
        other = next((name for name, value in arguments.items() if name not in allowed and value is not None), None)
        if other is not None or arguments.get("sealed_for") is not None:
            raise ConfigError("%s: expected it without reseal, which keeps the content" % (other or "sealed_for"))
        publish = self._sealed_publish(arguments, task_vars)
        keys = None if arguments.get("key") is None else [str(arguments["key"])]
        result = self._envelopes(arguments, keys, task_vars)
        if result.get("failed"):
            return result
        done: dict[str, t.Any] = {"changed": False, "resealed": [], "dropped": {}, "not_resealed": {}}
        for key, held in sorted(held_of(result, keys).items()):
            try:
                again = publish.reseal(key, held)
            except SealingError as exc:
                done["not_resealed"][key] = str(exc)
                continue
            if again is None:
                continue
            written = self._write_again(key, held, again.value, arguments, task_vars)
            if written.get("failed"):
                done["not_resealed"][key] = str(written.get("msg"))
                continue
            done["changed"] = True
            done["resealed"].append(key)
            if again.dropped:
                done["dropped"][key] = again.dropped
        if done["not_resealed"]:
            count = len(done["not_resealed"])
            told = "; ".join("document %r: %s" % item for item in sorted(done["not_resealed"].items())[:20])
            done.update(failed=True, msg="%d document(s) were not sealed again: %s" % (count, told))
        return done

    def _write_again(
        self, key: str, held: Held, value: bytes, given: dict[str, t.Any], task_vars: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        options = {"key": key, "src": "again", "content_type": SEALED, "if_version": held.version}
        options["comment"] = given.get("comment") or "sealed again"
        if held.expires is not None:
            left = seconds_until(held.expires)
            if left <= 0:
                return {}  # its time is over, so members have deleted it
            options["expires"] = str(left)
        checked = dict.fromkeys(document_spec())
        checked.update(options, state="present")
        wish = Wish(key, checked, lambda source: value)
        wish.sealed_for = [key]  # its bytes go to the host as a file
        arguments = {name: text for name, text in given.items() if name not in _RESEALING + ("reseal",)}
        return self._write(dict(arguments, **options), [wish], given, task_vars)

    def _decrypted(self, path: str) -> bytes:
        """Return the content of a file on the controller, decrypted if Ansible Vault has encrypted it."""
        return decrypted(self._loader, path)

    def _module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        result: dict[str, t.Any] = self._execute_module(
            module_name=self.MODULE, module_args=arguments, task_vars=task_vars
        )
        return result

    def _wishes(self, arguments: dict[str, t.Any]) -> list[Wish]:
        """Check the options of documents, and read all contents on the controller. Raises ``ConfigError``."""
        why = ("sign_key", "signed") if arguments.get("sign_key") is not None else ("sealed_for", "sealed")
        if arguments.get("rollback_to") is not None:
            raise ConfigError(
                "rollback_to: expected no rollback with %s, because a member would say what is %s: publish "
                "the former content with content, value or src" % why
            )
        if arguments.get("atomic") == "never" and arguments.get("sign_key") is not None:
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
                "remote_src: expected false with %s, because the target host would say what is %s: copy the "
                "file to the controller, and publish it with src" % why
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
                "cluster: expected the name of the fleet's cluster with sign_key and sealed_for, because signatures "
                "and sealed documents are for one cluster only: set cluster, or %s in the inventory" % _CLUSTER
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
        """Replace contents and types in ``arguments`` by those that the controller signs and seals."""
        copies = []
        for number, wish in enumerate(wishes):
            documents = arguments.get("documents")
            options = arguments if documents is None else documents[wish.key]
            source = options.get("src")
            for name in SOURCES + ("remote_src",):
                options.pop(name, None)
            if wish.value is None:
                continue
            if wish.content_type is not None:
                options["content_type"] = wish.content_type
            if source is None and not wish.sealed_for:
                options["content"] = wish.value.decode("utf-8")
                continue
            if not self._connection._shell.tmpdir:
                self._make_tmp_path()
            name = "document%d%s" % (number, suffix_of(source) if source else "")
            target = self._connection._shell.join_path(self._connection._shell.tmpdir, name)
            self._transfer_data(target, wish.value)
            copies.append(target)
            options.update(src=target, remote_src=True)
        if copies:
            self._fixup_perms2([self._connection._shell.tmpdir] + copies)


def _refuse_no_recipients(arguments: dict[str, t.Any], wishes: list[Wish]) -> None:
    """Raise ``ConfigError`` if a content would be published in clear text because ``sealed_for`` is an empty list.

    A template makes such a list of a group that does not exist. Only an entry of ``documents`` may be exempted, from
    the list of the task.
    """
    of_task = arguments.get("sealed_for")
    documents = arguments.get("documents")
    for wish in wishes:
        entry = documents.get(wish.key) if isinstance(documents, dict) else None
        own = entry.get("sealed_for") if isinstance(entry, dict) else None
        empty = of_task is not None and not of_task if own is None else not own and of_task is None
        if empty and wish.value is not None:
            raise ConfigError(
                "document %r: sealed_for: expected at least one host or group, got an empty list; nothing was published"
                % clip(wish.key)
            )
