# SPDX-License-Identifier: MIT
"""The steps that replace one file; apply.py decides which steps run for which files, and when.

Beside the file, where only root can write (place.py), lies from before the exchange until the reload is over its former
content (``.NAME.xg-former``) or, when there was none, a mark (``.NAME.xg-none``). Whoever finds one of them knows that
an exchange was not brought to its end (the helper was killed, the power failed), so that equal content is not taken for
done, and what was good before is not forgotten. At each moment the file itself is the old one or the new one, never a
part.
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
    """One file of ``template`` that is to have ``content``. Each step raises PlaceError and OSError.

    ``left``: whether what differs from the content was changed by hand, and is not to be touched. What is open is
    closed with ``stack``, and the new file is removed unless it is in place.
    """

    def __init__(
        self, template: TemplateConfig, content: bytes, own: Own, stack: contextlib.ExitStack, *, left: bool
    ) -> None:
        self.template = template
        self.state = "same"  # or ready (to be put in place), or left (as it was changed by hand)
        self.changes = False
        self.unfinished = False
        self._content = content
        self._left = left
        self._stack = stack
        place = self._place = stack.enter_context(Place(template.path, own))
        self._former, self._none, self._lost = (place.side(what) for what in ("former", "none", "lost"))
        self._prepare()

    def _prepare(self) -> None:
        """Look at what is in place, and write the new file if that is needed."""
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
        """Run the command that looks at the new file, if there is one. Raises CommandFailed."""
        template = self.template
        if PLACEHOLDER not in " ".join(template.validate):
            return
        group = self._rights.before(self._file, template.user)
        with self._place.shown(self._name, self._file, self._content, group) as path:
            command = [word.replace(PLACEHOLDER, path) for word in template.validate]
            commands.run(command, template.user, template.timeout)

    def finish_file(self) -> None:
        """Give the new file the rights and attributes that it is to have, and put it on the disk."""
        file = self._file
        # The mode comes last: a change of owner may clear bits of it, an access list may set some.
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
            attributes["security.selinux"] = label  # it was written in another directory
        for name in file.take_over(attributes):
            _log.warning("%s (%s): cannot keep %s", self.template.name, place.path, name)

    def keep(self) -> None:
        """Keep the former file, or that there was none, from before the exchange."""
        if self.unfinished:
            return  # what was in place before the one that was cut off is what was good
        if self._held is not None:
            self._place.keep(self._held, self._former)
        else:
            self._place.mark(self._none)
        self._place.sync()

    def exchange(self) -> None:
        """Put the new file in place."""
        self._place.rename(self._name, self._place.base)
        self._place.sync()

    def check_in_place(self) -> None:
        """Raise PlaceError unless the new file is still there. The traces stay: the next try goes on from them."""
        if not self._place.holds(self._file):
            raise PlaceError(f"{self._place.path}: another process replaced it at the same moment")

    def back_up(self) -> None:
        """Keep the former file as ``path~``, readable by nobody who cannot read the new one by its mode."""
        place, rights = self._place, self._rights
        former = place.open_side(self._former) if self.template.backup else None
        if former is None:
            return
        with former:
            found = os.fstat(former.descriptor)
            mode = stat.S_IMODE(found.st_mode)
            if mode & ~rights.mode and found.st_nlink > 1:
                # It may be a file of somebody else's, under another name.
                text = "%s (%s): no backup: the former file has other names (hard links), and its mode %04o is wider"
                _log.warning(text, self.template.name, place.path, mode)
                return
            if mode & ~rights.mode:
                os.fchmod(former.descriptor, mode & rights.mode)
        place.rename(self._former, f"{place.base}~")

    def bring_back(self) -> tuple[bool, str]:
        """Put the former file in place again; whether there was one, and what went wrong, for an error text.

        The traces stay until :meth:`forget`.
        """
        place, trouble = self._place, ""
        existed = place.has(self._former)
        if existed:
            # A link is put in place of the file: the mark stays until the reload is over.
            name = place.side("tmp-back")
            place.remove(name)
            place.link(self._former, name)
            place.rename(name, place.base)
            place.remove(name)  # rename() of two names of one file does nothing
        elif place.has(self._lost):
            trouble = "; another process moved the copy of the former file: it cannot be restored"
        else:
            place.remove_base()
        place.sync()
        return existed, trouble

    def forget(self) -> None:
        """The exchange is at its end."""
        for name in (self._former, self._none, self._lost):
            self._place.remove(name)
        self._place.sync()
