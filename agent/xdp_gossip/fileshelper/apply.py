# SPDX-License-Identifier: MIT
"""Puts one rendered file in place: written, validated, exchanged, reloaded; and the former one back if that fails.

Beside the file lies, from before the exchange until the reload is over, its former content (``.NAME.xg-former``) or,
when there was none, a mark (``.NAME.xg-none``). Whoever finds one of them knows that an exchange was not brought to its
end (the helper was killed, the power failed), so that equal content is not taken for done, and what was good before is
not forgotten. At each moment the file itself is the old one or the new one, never a part.
"""

from __future__ import annotations

import errno
import grp
import hashlib
import logging
import os
import pwd
import stat
from dataclasses import dataclass

from ..configtemplates import MAX_CONTENT, PLACEHOLDER, TemplateConfig
from . import commands
from .commands import CommandFailed
from .place import Place, PlaceError

_log = logging.getLogger("xdp_gossip.files")


@dataclass(frozen=True)
class Result:
    """``state``: applied, refused (validation or reload said no; ``stage`` which) or failed (it could not be tried)."""

    state: str
    changed: bool = False
    stage: str = ""
    error: str = ""


def apply(template: TemplateConfig, content: bytes) -> Result:
    """Put ``content`` in place for ``template``. Raises nothing that a file system or command can cause."""
    try:
        uid, gid = _ids(template)
        with Place(template.path) as place:
            return _Exchange(template, place).run(content, uid, gid)
    except PlaceError as error:
        return Result("failed", stage="write", error=str(error))
    except OSError as error:
        hint = " (is the path in the unit's ReadWritePaths=?)" if error.errno == errno.EROFS else ""
        return Result("failed", stage="write", error=f"{template.path}: {error.strerror or error}{hint}")


def _ids(template: TemplateConfig) -> tuple[int, int]:
    try:
        uid = pwd.getpwnam(template.owner).pw_uid
    except KeyError:
        raise PlaceError(f"owner {template.owner!r}: there is no such user") from None
    try:
        return uid, grp.getgrnam(template.group).gr_gid
    except KeyError:
        raise PlaceError(f"group {template.group!r}: there is no such group") from None


class _Exchange:
    def __init__(self, template: TemplateConfig, place: Place) -> None:
        self._template = template
        self._place = place
        self._former = place.side("former")
        self._none = place.side("none")

    def run(self, content: bytes, uid: int, gid: int) -> Result:
        place, template = self._place, self._template
        place.tidy()
        held = place.status(place.base)
        unfinished = place.status(self._former) is not None or place.status(self._none) is not None
        same = (
            held is not None
            and (held.st_uid, held.st_gid, stat.S_IMODE(held.st_mode)) == (uid, gid, template.mode)
            and place.digest(place.base, MAX_CONTENT) == hashlib.sha256(content).digest()
        )
        if same and not unfinished:
            return Result("applied")
        name = place.write(content, uid, gid, template.mode)
        try:
            if PLACEHOLDER in " ".join(template.validate):
                path = os.path.join(place.directory, name)
                try:
                    self._command([word.replace(PLACEHOLDER, path) for word in template.validate])
                except CommandFailed as error:
                    if unfinished:
                        self._bring_back()
                    return Result("refused", stage="validation", error=str(error))
            if not unfinished:
                if held is not None:
                    place.link(place.base, self._former)
                else:
                    place.mark(self._none)
                place.sync()
            place.rename(name, place.base)
        finally:
            place.remove(name)
        place.sync()
        return self._settle(changed=not same)

    def _settle(self, changed: bool) -> Result:
        """The new file is in place: have it used, or bring the former one back."""
        template, stage = self._template, "validation"
        try:
            if template.validate and PLACEHOLDER not in " ".join(template.validate):
                self._command(template.validate)
            stage = "reload"
            if template.reload:
                self._command(template.reload)
        except CommandFailed as error:
            return Result("refused", stage=stage, error=f"{error}{self._bring_back(reload=stage == 'reload')}")
        place = self._place
        if template.backup and place.status(self._former) is not None:
            place.rename(self._former, f"{place.base}~")
        place.remove(self._former)
        place.remove(self._none)
        place.sync()
        return Result("applied", changed=changed)

    def _bring_back(self, reload: bool = True) -> str:
        """The former file again, and used again; what went wrong with that, for the error text."""
        place = self._place
        existed = place.status(self._former) is not None
        if existed:
            # A link is put in place of the file: the mark stays until the reload is over.
            name = place.side("tmp-back")
            place.remove(name)
            place.link(self._former, name)
            place.rename(name, place.base)
            place.remove(name)  # rename() of two names of one file does nothing
        else:
            place.remove(place.base)
        place.sync()
        trouble = ""
        if reload and self._template.reload and existed:
            try:
                self._command(self._template.reload)
            except CommandFailed as error:
                trouble = f"; the former file is back, but its reload failed too: {error}"
                _log.error("%s: %s", self._template.name, trouble[2:])
        place.remove(self._former)
        place.remove(self._none)
        place.sync()
        return trouble

    def _command(self, command: list[str] | tuple[str, ...]) -> None:
        commands.run(command, self._template.user, self._template.timeout)
