# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: compares and changes single files and links of a host, and runs commands there. Python
3.8 or later.

In check mode, the class ``Host`` changes nothing and only records the changes that it would make.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_bytes, to_text


class Refused(Exception):
    """Raised if a step failed; ``str()`` names the file or command, what was expected, and what was found."""


class Host:
    """The host on which a module runs.

    ``changes`` has one line for each change that was made; in check mode, for each change that would be made. ``diffs``
    contains the diffs of these changes for ``--diff``, without secrets.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.check = bool(module.check_mode)
        self.changes: list[str] = []
        self.diffs: list[dict[str, str]] = []
        self._module = module

    def note(self, change: str) -> None:
        """Append one line to ``changes``."""
        self.changes.append(change)

    def run(self, words: t.Sequence[str], data: str | None = None) -> tuple[int, str, str]:
        """Run a command with ``data`` as its standard input. Returns exit status, standard output and standard error.

        The status is 127 if the program does not exist. The command also runs in check mode.
        """
        if not shutil.which(words[0]):
            return 127, "", "%s: not found" % words[0]
        status, output, errors = self._module.run_command(list(words), data=data)
        return status, to_text(output), to_text(errors)

    def must(self, words: t.Sequence[str]) -> str:
        """Run a command and return its output. Raises ``Refused`` if the exit status is not 0."""
        status, output, errors = self.run(words)
        if status:
            raise Refused(
                "%s: expected exit status 0, got %d: %s" % (" ".join(words), status, (errors or output).strip())
            )
        return output

    def directory(self, path: str, group: str, mode: str) -> bool:
        """Create the directory, owned by root and ``group``. Returns whether the directory was created or changed.

        The parent directory must exist. If the path is a link to a directory, the method uses the target of the link.
        Raises ``Refused``.
        """
        path = os.path.realpath(path)
        made = not os.path.isdir(path)
        if made:
            if not self.check:
                try:
                    os.mkdir(path, 0o700)
                except OSError as error:
                    raise Refused("%s: expected to make the directory: %s" % (path, error)) from None
            self.note(path)
            if self.check:
                return True
        return self._permit(path, group, mode, noted=made) or made

    def file(
        self,
        path: str,
        content: str,
        group: str,
        mode: str,
        validate: t.Sequence[str] = (),
        secret: bool = False,
        owner: str = "root",
    ) -> bool:
        """Write the file, owned by ``owner`` and ``group``. Returns whether the file was created or changed.

        The last argument of the command ``validate`` is the path of a temporary file with the new content. If
        ``validate`` succeeds, the temporary file replaces the old file atomically. If ``validate`` fails, the method
        raises ``Refused``.
        """
        wanted = to_bytes(content)
        found = _read(path)
        written = wanted != found
        if written:
            if not self.check:
                self._replace(path, wanted, validate)
            self.note(path)
            if not secret:
                self._show(path, "" if found is None else to_text(found, errors="replace"), content)
            if self.check:
                return True
        return self._permit(path, group, mode, noted=written, owner=owner) or written

    def parents(self, path: str) -> None:
        """Create the missing parent directories of the path, with read permission for all users. Raises ``Refused``."""
        place = os.path.dirname(path)
        if self.check or os.path.isdir(place):
            return
        self.parents(place)
        try:
            os.mkdir(place, 0o755)
            os.chmod(place, 0o755)
        except OSError as error:
            raise Refused("%s: expected to make the directory: %s" % (place, error)) from None

    def link(self, path: str, target: str) -> bool:
        """Create or replace the symbolic link atomically. Returns whether the link was created or changed.

        Raises ``Refused`` if the path exists and is not a symbolic link.
        """
        if os.path.islink(path) and os.readlink(path) == target:
            return False
        if os.path.lexists(path) and not os.path.islink(path):
            raise Refused("%s: expected a symbolic link, found something else" % path)
        self.note(path)
        self._show(path, os.readlink(path) if os.path.islink(path) else "", target)
        if not self.check:
            fresh = "%s.%d.new" % (path, os.getpid())
            os.symlink(target, fresh)
            os.replace(fresh, path)
        return True

    def remove(self, path: str) -> bool:
        """Remove the file, link or directory. Returns whether it existed."""
        if not os.path.lexists(path):
            return False
        self.note("%s (removed)" % path)
        if not self.check:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        return True

    def _replace(self, path: str, content: bytes, validate: t.Sequence[str]) -> None:
        handle, fresh = tempfile.mkstemp(dir=self._module.tmpdir)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        if validate:
            status, output, errors = self.run(list(validate) + [fresh])
            if status:
                raise Refused(
                    "%s: expected `%s` to accept the new content, got exit status %d: %s %s"
                    % (path, " ".join(validate), status, output.strip(), errors.strip())
                )
        self._module.atomic_move(fresh, path)

    def _permit(self, path: str, group: str, mode: str, noted: bool, owner: str = "root") -> bool:
        """Set owner, group and mode. Returns whether owner, group or mode changed.

        With ``noted``, ``changes`` already has a line for this path, and the method adds no second line.
        """
        wanted = {"path": path, "owner": owner, "group": group, "mode": mode}
        arguments = self._module.load_file_common_arguments(wanted)
        diff: dict[str, t.Any] = {}
        changed = bool(self._module.set_fs_attributes_if_different(arguments, False, diff, expand=False))
        if changed and not noted:
            self.note("%s (permissions)" % path)
            self._show(
                path,
                *(
                    "\n".join("%s: %s" % pair for pair in sorted(diff.get(side, {}).items()))
                    for side in ("before", "after")
                ),
            )
        return changed

    def _show(self, path: str, before: str, after: str) -> None:
        if self._module._diff:
            self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})


def _read(path: str) -> bytes | None:
    """Return the content of a file; ``None`` if the file does not exist or is a symbolic link. Raises ``Refused``."""
    if os.path.islink(path) or not os.path.lexists(path):
        return None
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise Refused("%s: expected to read the file: %s" % (path, error)) from None
