# SPDX-License-Identifier: MIT
"""Checks who may read the secrets, and who may write the files that the agent or root uses."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator

from . import unseen
from .finding import Finding, Subject
from .look import Look, may_not

_SAYS = Subject("files", open="error", writable="error", group="warning", shut="error")
_USER = "xdp-gossip"


def examine(look: Look) -> Iterator[Finding]:
    """Check the permissions of every file that the configuration names, and of the directories that contain them."""
    for problem in look.problems:
        if "a file that others cannot use" in problem:
            yield _SAYS("open", problem, "chmod o= FILE; it was open: replace the secret, too")
    secrets, others = named(look)
    sound = True
    for path in (*secrets, *others):
        for finding in _one(path, path in secrets, look):
            sound = False
            yield finding
    for directory in sorted({os.path.dirname(path) for path in (*secrets, *others)}):
        found = _stat(directory)
        if found is not None and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            sound = False
            yield _SAYS("writable", f"{directory} can be written by anybody", f"chmod o-w {directory}")
    if sound:
        yield _SAYS.ok(f"{len(secrets)} secret files are closed to others")


def named(look: Look) -> tuple[list[str], list[str]]:
    """Return the existing files that contain secrets, and the existing files that only root or the agent may write."""
    secrets = [path for setting, path in look.files.items() if not setting.endswith((".cert", ".source"))]
    others = [path for path in (os.path.abspath(look.path), *look.files.values()) if path not in secrets]
    return [path for path in secrets if os.path.exists(path)], [path for path in others if os.path.exists(path)]


def _one(path: str, secret: bool, look: Look) -> Iterator[Finding]:
    try:
        found = os.stat(path)
    except OSError as error:
        if may_not(error):
            yield unseen(path)
        return
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    if found.st_mode & stat.S_IWOTH:
        yield _SAYS("writable", f"{path} can be written by anybody (mode {mode})", f"chmod o-w {path}")
    user, group = _agent(look)
    if secret and found.st_mode & stat.S_IRGRP and found.st_gid not in (0, group) and group >= 0:
        text = f"{path} can be read by group {_group(found.st_gid)}, which is not the agent's (mode {mode})"
        yield _SAYS("group", text, _own(path, user))
    elif secret and found.st_mode & stat.S_IRGRP and found.st_gid == group > 0:
        # Users need this group to open the API's socket, and api.socket_rights limits what they may do there.
        text = f"{path} can be read by group {_group(group)}, whose users may open the API's socket (mode {mode})"
        yield _SAYS("group", text, _own(path, user))
    if user > 0 and not _readable(found, user, group):
        text = f"{path} cannot be read by the agent's user {_user(user)} (mode {mode}): it would not start"
        yield _SAYS("shut", text, _own(path, user) if secret else f"chgrp {_group(group)} {path}; chmod 0640 {path}")


def _own(path: str, user: int) -> str:
    """The commands after which only root and the agent's user can read the file."""
    return f"chown {_user(user)}:root {path}; chmod 0440 {path}"


def _agent(look: Look) -> tuple[int, int]:
    """Return the user and group id of the running agent; if no agent runs, the ids of the account that the role
    creates.
    """
    if look.uid >= 0:
        return look.uid, look.gid
    try:
        account = pwd.getpwnam(_USER)
    except KeyError:
        return -1, -1
    return account.pw_uid, account.pw_gid


def _readable(found: os.stat_result, user: int, group: int) -> bool:
    if found.st_uid == user:
        return bool(found.st_mode & stat.S_IRUSR)
    groups = {group, *(entry.gr_gid for entry in grp.getgrall() if _user(user) in entry.gr_mem)}
    return bool(found.st_mode & (stat.S_IRGRP if found.st_gid in groups else stat.S_IROTH))


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
