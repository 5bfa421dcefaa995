# SPDX-License-Identifier: MIT
"""Determines who owns a rendered file and who may read it, during validation and after installation."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass

from ...config.templates import TemplateConfig
from . import commands
from .held import Held, PlaceError


@dataclass(frozen=True)
class Rights:
    """Owner, group and mode of a file."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, template: TemplateConfig, held: Held | None) -> Rights:
        """Return the configured owner, group and mode. A value that is not configured is taken from the installed file
        ``held``. If no file is installed (``held`` is None), the defaults are the owner and the group of the helper's
        process (root), and the mode 0644.

        Raises PlaceError for an unknown account.
        """
        uid, gid, mode = os.geteuid(), os.getegid(), 0o644
        if held is not None:
            uid, gid, mode = held.status.st_uid, held.status.st_gid, held.status.st_mode & 0o777
        try:
            uid = uid if template.owner is None else pwd.getpwnam(template.owner).pw_uid
        except KeyError:
            raise PlaceError(f"owner {template.owner!r}: there is no such user") from None
        try:
            gid = gid if template.group is None else grp.getgrnam(template.group).gr_gid
        except KeyError:
            raise PlaceError(f"group {template.group!r}: there is no such group") from None
        return cls(uid, gid, mode if template.mode is None else template.mode)

    def has(self, held: Held) -> bool:
        """Whether the open file ``held`` already has this owner, group and mode."""
        found = held.status
        return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (self.uid, self.gid, self.mode)

    def before(self, file: Held, user: str) -> int | None:
        """Let ``user`` read the new file if it may also read the file after installation. Let no user write the new
        file.

        Returns the group that may access the file; None if ``user`` is the helper's own user. The new file belongs to
        root until it has been validated, because any other owner could change the content during validation.
        """
        account = commands.account(user)
        if account.pw_uid == os.geteuid():
            os.fchown(file.descriptor, -1, self.gid)
            os.fchmod(file.descriptor, self.mode & ~0o022)
            return None
        if account.pw_uid == self.uid:
            bits = self.mode >> 6
        elif self.gid in os.getgrouplist(user, account.pw_gid):
            bits = self.mode >> 3
        else:
            bits = self.mode
        os.fchown(file.descriptor, -1, account.pw_gid)
        os.fchmod(file.descriptor, self.mode & 0o705 | (bits & 5) << 3)
        return account.pw_gid
