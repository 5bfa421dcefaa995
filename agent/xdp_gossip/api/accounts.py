# SPDX-License-Identifier: MIT
"""Finds out which user is at the other end of a Unix socket, and which groups the user has."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..config.access import SocketRight

_CREDENTIALS = struct.Struct("iII")  # layout of struct ucred: pid, uid, gid (unix(7))
#: Socket option that returns the supplementary groups of the peer (asm-generic/socket.h); Python has no name for it.
_SO_PEERGROUPS = 59
#: Bytes for the groups of a peer: Python's maximum, 256 groups. Of a user with more groups, only the first counts.
_GROUPS_BYTES = 1024
#: Seconds for which the name of a user or the number of a group is remembered, and maximum number of them.
_FRESH = 60.0
_MOST = 4096


class Peer(NamedTuple):
    """A user of the Unix socket: the user's number, and the numbers of the groups of the process that connected."""

    uid: int
    gids: frozenset[int]

    @property
    def is_own(self) -> bool:
        """Whether the user is root or the agent's own user."""
        return self.uid in (0, os.geteuid())


def peer_of(sock: Any) -> Peer:
    """Return the user who opened the Unix socket ``sock``, as the kernel knows it. Raises ``OSError``."""
    _pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # the kernel is older than 4.13, or the user has more than 256 groups
        raw = b""
    return Peer(uid, frozenset({gid, *struct.unpack(f"{len(raw) // 4}I", raw[: len(raw) // 4 * 4])}))


class Accounts:
    """The names of users and the numbers of groups.

    A look-up may ask a directory server, so :meth:`learn` asks in a thread, and the other methods only remember.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._names: dict[int, str] = {0: "root"}
        self._ids: dict[str, int] = {}
        self._asked: dict[object, float] = {}

    async def learn(self, peer: Peer, entries: Iterable[SocketRight]) -> None:
        """Look up the name of ``peer`` and the users and groups of ``entries``, unless that was done a minute ago."""
        wanted: list[object] = [peer.uid] if peer.uid else []
        for entry in entries:
            wanted.append(f"user:{entry.user}" if entry.user else f"group:{entry.group}")
        now = self._clock()
        stale = [one for one in wanted if now - self._asked.get(one, -_FRESH) >= _FRESH]
        if not stale:
            return
        if len(self._asked) > _MOST:
            self._asked.clear()
            self._names = {0: "root"}
            stale = wanted
        for one, found in (await asyncio.to_thread(_looked_up, stale)).items():
            self._asked[one] = now
            if isinstance(one, int):
                self._names[one] = str(found)
            elif found is None:
                self._ids.pop(str(one), None)
            else:
                self._ids[str(one)] = int(found)

    def name(self, uid: int) -> str:
        """Return the name of the user ``uid``; its number if the user has no printable name."""
        return self._names.get(uid, str(uid))

    def matches(self, peer: Peer, entry: SocketRight) -> bool:
        """Whether ``entry`` names the user ``peer`` or one of its groups."""
        if entry.user:
            return self._ids.get(f"user:{entry.user}") == peer.uid
        return self._ids.get(f"group:{entry.group}") in peer.gids


def _looked_up(wanted: Iterable[object]) -> dict[object, Any]:
    return {one: _user_name(one) if isinstance(one, int) else _number(str(one)) for one in wanted}


def _user_name(uid: int) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return str(uid)
    return name if name.isprintable() and 0 < len(name.encode("utf-8", "replace")) <= 64 else str(uid)


def _number(account: str) -> int | None:
    kind, _colon, name = account.partition(":")
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except (KeyError, OSError):
        return int(name) if name.isascii() and name.isdigit() else None
