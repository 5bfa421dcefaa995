# SPDX-License-Identifier: MIT
"""Contains the steps that replace one file. The module apply.py decides for which files and in which order these steps
run.

From the exchange until the end of the reload, the private directory (place.py) contains the former content
(``.NAME.xg-former``) or, if there was no file, an empty mark file (``.NAME.xg-none``). If the next run finds a file
with one of these two names, the previous exchange was interrupted: the helper was killed or the power failed. After an
interruption, the helper installs the new content again even if the file already has this content. After an
interruption, the helper can still restore the former content. At each moment, the path of the file leads to the
complete old file or to the complete new file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat

from ...config.templates import MAX_CONTENT, PLACEHOLDER, TemplateConfig
from . import commands
from .held import Held, PlaceError
from .own import Own
from .place import Place
from .rights import Rights

_log = logging.getLogger("xdp_gossip.files")


class Exchange:
    """The replacement of the file of ``template`` with a new file that contains ``content``.

    Each step may raise PlaceError or OSError.

    ``left``: whether a file that differs from ``content`` was changed by hand and must not be replaced. When ``stack``
    is closed, the open files are closed, and the new file is removed unless it was installed.
    """

    def __init__(
        self, template: TemplateConfig, content: bytes, own: Own, stack: contextlib.ExitStack, *, left: bool
    ) -> None:
        self.template = template
        # "same" (up to date), "ready" (must be replaced) or "left" (changed by hand, must not be replaced).
        self.state = "same"
        self.changes = False
        self.unfinished = False
        self._content = content
        self._left = left
        self._stack = stack
        place = self._place = stack.enter_context(Place(template.path, own))
        self._former, self._none, self._lost = (place.side(what) for what in ("former", "none", "lost"))
        self._prepare()

    def _prepare(self) -> None:
        """Compare the installed file with the new content. If they differ, write the new file in the private
        directory.
        """
        place, template = self._place, self.template
        place.tidy()
        self._held = held = place.held()
        if held is not None:
            self._stack.callback(held.close)
        self._rights = Rights.of(template, held)
        self.unfinished = any(map(place.has, (self._former, self._none, self._lost)))
        digest = hashlib.sha256(self._content).digest()
        self.changes = held is None or not self._rights.has(held) or held.digest(MAX_CONTENT) != digest
        if not self.changes and not self.unfinished:
            return
        if self._left and not self.unfinished:
            self.state = "left"
            return
        if template.backup:
            place.check_replaceable(f"{place.base}~")
        self._name, self._file = place.write(self._content)
        self._stack.callback(self._file.close)
        self._stack.callback(place.remove, self._name)
        self.state = "ready"

    def validate(self) -> None:
        """Run the command that validates the new file, if one is configured. Raises CommandFailed."""
        template = self.template
        if PLACEHOLDER not in " ".join(template.validate):
            return
        group = self._rights.before(self._file, template.user)
        with self._place.shown(self._name, self._file, self._content, group) as path:
            command = [word.replace(PLACEHOLDER, path) for word in template.validate]
            commands.run(command, template.user, template.timeout)

    def finish_file(self) -> None:
        """Set the final rights and attributes of the new file, and flush it to disk."""
        file = self._file
        # Set the mode last, because a change of owner may clear mode bits, and an access control list may set mode
        # bits.
        os.fchown(file.descriptor, self._rights.uid, self._rights.gid)
        self._keep_attributes(file)
        os.fchmod(file.descriptor, self._rights.mode)
        file.sync()

    def _keep_attributes(self, file: Held) -> None:
        place = self._place
        attributes = file.attributes()
        if self._held is not None:
            attributes = self._held.attributes()
        elif not place.trusted and (label := place.label()) is not None:
            # The new file was written in the helper's own directory and got the label of that directory.
            attributes["security.selinux"] = label
        for name in file.take_over(attributes):
            _log.warning("%s (%s): cannot keep %s", self.template.name, place.path, name)

    def keep(self) -> None:
        """Before the exchange, create a link to the former file in the private directory.

        If there is no former file, create an empty mark file instead.
        """
        if self.unfinished:
            return  # keep the former file of the interrupted exchange, the last file that is known to work
        if self._held is not None:
            self._place.keep(self._held, self._former)
        else:
            self._place.mark(self._none)
        self._place.sync()

    def exchange(self) -> None:
        """Replace the former file with the new file."""
        self._place.rename(self._name, self._place.base)
        self._place.sync()

    def check_in_place(self) -> None:
        """Raise PlaceError if the path no longer leads to the new file. If the method raises the error, the former file
        stays in the private directory for the next attempt.
        """
        if not self._place.holds(self._file):
            raise PlaceError(f"{self._place.path}: another process replaced it at the same moment")

    def back_up(self) -> None:
        """Move the former file to ``path~``.

        Remove from the former file the permissions that the new file does not have.
        """
        place, rights = self._place, self._rights
        former = place.open_side(self._former) if self.template.backup else None
        if former is None:
            return
        with former:
            found = os.fstat(former.descriptor)
            mode = stat.S_IMODE(found.st_mode)
            if mode & ~rights.mode and found.st_nlink > 1:
                # Another hard link to the former file may belong to another program, so the mode of the former file
                # must not be changed.
                text = "%s (%s): no backup: the former file has other names (hard links), and its mode %04o is wider"
                _log.warning(text, self.template.name, place.path, mode)
                return
            if mode & ~rights.mode:
                os.fchmod(former.descriptor, mode & rights.mode)
        place.rename(self._former, f"{place.base}~")

    def bring_back(self) -> tuple[bool, str]:
        """Restore the former file. Returns whether a former file existed, and an error text if the former file could
        not be restored ("" otherwise).

        The former file also stays in the private directory until :meth:`forget` removes it.
        """
        place, trouble = self._place, ""
        existed = place.has(self._former)
        if existed:
            # Create a second link to the former file, and rename the second link to the target's name, so that the
            # former file also stays in the private directory until the reload is over.
            name = place.side("tmp-back")
            place.remove(name)
            place.link(self._former, name)
            place.rename(name, place.base)
            # rename(2) does nothing if both names are links to the same file.
            place.remove(name)
        elif place.has(self._lost):
            trouble = "; another process moved the copy of the former file: it cannot be restored"
        else:
            place.remove_base()
        place.sync()
        return existed, trouble

    def forget(self) -> None:
        """End the exchange: remove the former file and the marks from the private directory."""
        for name in (self._former, self._none, self._lost):
            self._place.remove(name)
        self._place.sync()
