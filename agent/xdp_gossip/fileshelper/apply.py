# SPDX-License-Identifier: MIT
"""Puts one rendered file in place: written, validated, exchanged, reloaded; and the former one back if that fails.

Beside the file, where only root can write (place.py), lies from before the exchange until the reload is over its former
content (``.NAME.xg-former``) or, when there was none, a mark (``.NAME.xg-none``). Whoever finds one of them knows that
an exchange was not brought to its end (the helper was killed, the power failed), so that equal content is not taken for
done, and what was good before is not forgotten. At each moment the file itself is the old one or the new one, never a
part.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
from dataclasses import dataclass

from ..configtemplates import MAX_CONTENT, PLACEHOLDER, TemplateConfig
from . import commands, drift
from .commands import CommandFailed
from .held import Held, PlaceError
from .own import Own
from .place import Place
from .rights import Rights

_log = logging.getLogger("xdp_gossip.files")

#: What to look at when the system says no.
_HINTS = {
    errno.EROFS: " (is the path in the unit's ReadWritePaths=?)",
    errno.EPERM: " (immutable? lsattr shows an i, chattr -i takes it away)",
}


@dataclass(frozen=True)
class Result:
    """``state``: applied, refused (not to be tried again with this content), failed (it could not be tried) or drifted
    (the file in place was changed by hand since this was put there, and is to be left).

    ``stage``: where it ended: write, validation or reload. ``output``: what the command said, for templates that allow
    it, and for those only who may read the file.
    """

    state: str
    changed: bool = False
    stage: str = ""
    error: str = ""
    output: str = ""


def apply(template: TemplateConfig, content: bytes, own: Own, *, repair: bool = False) -> Result:
    """Put ``content`` in place for ``template``. Raises nothing that a file system or command can cause.

    ``repair``: also where the template leaves a file that was changed by hand as it is.
    """
    try:
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(Place(template.path, own))
            wanted = drift.expected(template, content)
            left = not repair and drift.left_alone(own, template, wanted)
            result = _Exchange(template, place, stack, left).run(content)
            if result.state == "applied":
                drift.remember(own, template, wanted)
            return result
    except PlaceError as error:
        return Result("refused" if error.final else "failed", stage="write", error=str(error))
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        return Result("failed", stage="write", error=f"{template.path}: {error.strerror or error}{hint}")


class _Exchange:
    def __init__(self, template: TemplateConfig, place: Place, stack: contextlib.ExitStack, left: bool) -> None:
        self._template = template
        self._left = left  # what differs from the content was changed by hand, and is not to be touched
        self._place = place
        self._stack = stack  # for files that are open until the end
        self._former = place.side("former")
        self._none = place.side("none")
        self._lost = place.side("lost")

    def run(self, content: bytes) -> Result:
        place, template = self._place, self._template
        place.tidy()
        held = place.held()
        if held is not None:
            self._stack.callback(held.close)
        rights = Rights.of(template, held)
        unfinished = any(map(place.has, (self._former, self._none, self._lost)))
        digest = hashlib.sha256(content).digest()
        same = held is not None and rights.has(held) and held.digest(MAX_CONTENT) == digest
        if same and not unfinished:
            return Result("applied")
        if self._left and not unfinished:
            return Result("drifted", stage="write", error="changed by hand, and left so")
        if template.backup:
            place.check_replaceable(f"{place.base}~")
        name, file = place.write(content)
        self._stack.callback(file.close)
        try:
            if PLACEHOLDER in " ".join(template.validate):
                try:
                    with place.shown(name, file, content, rights.before(file, template.user)) as path:
                        self._command([word.replace(PLACEHOLDER, path) for word in template.validate])
                except CommandFailed as error:
                    if unfinished:
                        self._bring_back()
                    return self._refused("validation", error)
            # The mode comes last: a change of owner may clear bits of it, an access list may set some.
            os.fchown(file.descriptor, rights.uid, rights.gid)
            self._keep_attributes(file, held)
            os.fchmod(file.descriptor, rights.mode)
            file.sync()
            if not unfinished:
                if held is not None:
                    place.keep(held, self._former)
                else:
                    place.mark(self._none)
                place.sync()
            place.rename(name, place.base)
        finally:
            place.remove(name)
        place.sync()
        return self._settle(file, rights, changed=not same)

    def _keep_attributes(self, file: Held, held: Held | None) -> None:
        place = self._place
        attributes = file.attributes()
        if held is not None:
            attributes = held.attributes()
        elif not place.trusted and (label := place.label()) is not None:
            attributes["security.selinux"] = label  # it was written in another directory
        for name in file.take_over(attributes):
            _log.warning("%s (%s): cannot keep %s", self._template.name, place.path, name)

    def _settle(self, file: Held, rights: Rights, changed: bool) -> Result:
        """The new file is in place: have it used, or bring the former one back."""
        template, place = self._template, self._place
        after = template.validate if PLACEHOLDER not in " ".join(template.validate) else ()
        for stage, command in (("validation", after), ("reload", template.reload)):
            if not command:
                continue
            if not place.holds(file):
                # The traces stay: the next try knows that this one did not come to its end.
                raise PlaceError(f"{place.path}: somebody else replaced it at the same moment")
            try:
                self._command(command)
            except CommandFailed as error:
                return self._refused(stage, error, self._bring_back(reload=stage == "reload"))
        if template.backup:
            self._back_up(rights)
        self._forget()
        return Result("applied", changed=changed)

    def _back_up(self, rights: Rights) -> None:
        """Keep the former file as ``path~``, readable by nobody who cannot read the new one by its mode."""
        place = self._place
        former = place.open_side(self._former)
        if former is None:
            return
        with former:
            found = os.fstat(former.descriptor)
            mode = stat.S_IMODE(found.st_mode)
            if mode & ~rights.mode and found.st_nlink > 1:
                # It may be a file of somebody else's, under another name.
                text = "%s (%s): no backup: the former file has other names (hard links), and its mode %04o is wider"
                _log.warning(text, self._template.name, place.path, mode)
                return
            if mode & ~rights.mode:
                os.fchmod(former.descriptor, mode & rights.mode)
        place.rename(self._former, f"{place.base}~")

    def _bring_back(self, reload: bool = True) -> str:
        """The former file again, and used again; what went wrong with that, for the error text."""
        place = self._place
        trouble = ""
        existed = place.has(self._former)
        if existed:
            # A link is put in place of the file: the mark stays until the reload is over.
            name = place.side("tmp-back")
            place.remove(name)
            place.link(self._former, name)
            place.rename(name, place.base)
            place.remove(name)  # rename() of two names of one file does nothing
        elif place.has(self._lost):
            trouble = "; somebody moved what was kept of the former file: it cannot come back"
        else:
            place.remove_base()
        place.sync()
        if reload and self._template.reload and existed:
            try:
                self._command(self._template.reload)
            except CommandFailed as error:
                trouble = f"; the former file is back, but its reload failed too: {error}"
        if trouble:
            _log.error("%s: %s", self._template.name, trouble[2:])
        self._forget()
        return trouble

    def _forget(self) -> None:
        for name in (self._former, self._none, self._lost):
            self._place.remove(name)
        self._place.sync()

    def _command(self, command: list[str] | tuple[str, ...]) -> None:
        commands.run(command, self._template.user, self._template.timeout)

    def _refused(self, stage: str, error: CommandFailed, more: str = "") -> Result:
        shows = self._template.show_output
        held_back = "; what it said is held back (show_output)" if error.said and not shows else ""
        text = f"{error}{held_back}{more}"
        return Result("refused", stage=stage, error=text, output=error.said if shows else "")
