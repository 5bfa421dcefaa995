# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: copies files from the controller to the host, in the same way as ansible.builtin.copy."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.collection_loader import AnsibleCollectionConfig
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import MAX_VALUE, suffix_of


class LocalFiles(ActionBase):
    """Action that copies each ``src`` on the controller to the host, and then runs ``MODULE`` with the copies."""

    TRANSFERS_FILES = True
    MODULE = ""

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Copy the files, run the module, and remove the copies. Raises ``AnsibleActionFail`` if a file cannot
        be read.
        """
        arguments = dict(self._task.args)
        if isinstance(arguments.get("documents"), dict):
            arguments["documents"] = {
                key: dict(entry) if isinstance(entry, dict) else entry for key, entry in arguments["documents"].items()
            }
        local = [options for options in self._options(arguments) if not _is_remote(options, arguments)]
        # An asynchronous task would still need the copies when this action removes the copies.
        self._supports_async = not local
        self._supports_check_mode = True
        super().run(tmp, task_vars)
        try:
            copies = [self._transfer(options, number) for number, options in enumerate(local)]
            if copies:
                self._fixup_perms2([self._connection._shell.tmpdir] + copies)
            result: dict[str, t.Any] = self._execute_module(
                module_name=self.MODULE, module_args=arguments, task_vars=task_vars, wrap_async=self._task.async_val
            )
            shown = (result.get("invocation") or {}).get("module_args") or {}
            if copies and shown.get("src"):
                shown["src"] = self._task.args["src"]
            return result
        finally:
            if local:
                self._remove_tmp_path(self._connection._shell.tmpdir)

    def _options(self, arguments: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """Return the dictionaries of options in which ``src`` is set: the module's own options, and the options of each
        document.
        """
        documents = arguments.get("documents")
        entries = list(documents.values()) if isinstance(documents, dict) else []
        found = [entry for entry in [arguments] + entries if isinstance(entry, dict)]
        return [entry for entry in found if isinstance(entry.get("src"), str)]

    def _find(self, source: str) -> str:
        """Return the path of the file on the controller. If the file does not exist, the method raises ``AnsibleError``
        with the directories that it searched.

        Searches like ``ansible.builtin.copy``. For a playbook of a collection, the method also searches in the current
        directory, because users do not store their files in the directory of a collection.
        """
        try:
            return str(self._find_needle("files", source))
        except AnsibleFileNotFound as exc:
            here = os.path.abspath(source)
            if AnsibleCollectionConfig.default_collection is None or source.startswith(("~", "/")):
                raise
            if os.path.exists(here):
                return here
            raise AnsibleError("%s\nSearched in the current directory, too:\n\t%s" % (exc, here)) from exc

    def _transfer(self, options: dict[str, t.Any], number: int) -> str:
        source = options["src"]
        real = None
        try:
            # get_real_file decrypts files that Ansible Vault has encrypted.
            real = self._loader.get_real_file(self._find(source))
            size = os.path.getsize(real)
            if not os.path.isfile(real):
                raise AnsibleActionFail("src %s: expected a file on the controller" % source)
            if size > MAX_VALUE:
                raise AnsibleActionFail("src %s: expected at most %d bytes, got %d" % (source, MAX_VALUE, size))
            if not self._connection._shell.tmpdir:
                self._make_tmp_path()
            name = "document%d%s" % (number, suffix_of(source))
            target: str = self._connection._shell.join_path(self._connection._shell.tmpdir, name)
            self._transfer_file(real, target)
        except AnsibleActionFail:
            raise
        except (AnsibleError, OSError) as exc:
            raise AnsibleActionFail("src %s: %s" % (source, exc)) from exc
        finally:
            if real:
                self._loader.cleanup_tmp_file(real)
        options.update(src=target, remote_src=True)
        return target


def _is_remote(options: dict[str, t.Any], shared: dict[str, t.Any]) -> bool:
    own = options.get("remote_src")
    return bool(boolean(shared.get("remote_src") if own is None else own, strict=False))
