# SPDX-License-Identifier: MIT
"""Decides when the agent asks the loader to look again, and writes the request file.

The agent has no privilege, so it cannot start the loader. The loader creates a directory ``ask`` that belongs to the
agent; systemd starts the loader when the file ``request`` appears there (``xdp-gossip-dataplane.path``) and removes the
file first. A request made while a loader works is therefore not lost: it starts the next one.

The request also holds the addresses that the agent's packets go to. Where only the loopback interface has the node's
address, the loader puts the plane onto the interface that a route to them uses.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import math
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.types import Now
from .interfaces import Facts

_log = logging.getLogger("xdp_gossip.dataplane")

#: The agent's directory below the loader's, the request file in it, and the file with the packets' destinations.
ASK, REQUEST, _TOWARD_FILE = "ask", "request", "toward"
#: First and longest pause in seconds between two requests while nothing has changed. Each pause doubles the last one.
FIRST, MOST = 5.0, 300.0
#: Least seconds between two requests, whatever happens.
SPACING = 1.0
#: Seconds for which the agent checks often for the loader's answer, and waits before it tries a failed plane without
#: one.
ANSWER = 30.0
#: Seconds after a request, or the loader's work, during which changes of carrier, features and programs count as the
#: loader's own: drivers reset when a program is attached. What still differs afterwards counts.
SETTLE = 10.0
#: Seconds for which a plane must carry before an earlier failure is forgotten.
STABLE = 60.0
#: Most addresses that the loader is told, and most bytes that it reads of them.
TOWARD, _TOWARD_BYTES = 16, 4096


class Request:
    """The file that asks the loader to look again, and the addresses stored with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / ASK
        self.path = self.directory / REQUEST
        self._toward = self.directory / _TOWARD_FILE

    def there(self) -> bool:
        """Whether the directory exists, so that a request can be noticed."""
        return self.directory.is_dir()

    def waits(self) -> bool:
        """Whether no loader has taken the request yet."""
        return self.path.exists()

    def write(self, reason: str, at: float, toward: Sequence[str] = ()) -> None:
        """Ask the loader. Raises ``OSError``, also when the loader has not created the directory.

        ``toward``: addresses that packets go to; an empty one keeps the addresses of the last request.
        """
        if toward:
            _write(self._toward, list(toward[:TOWARD]))
        _write(self.path, {"reason": reason, "at": at})

    def toward(self) -> list[str]:
        """The addresses that the agent stored.

        The loader calls this. It is root and validates whatever the agent wrote.
        """
        try:
            descriptor = os.open(self._toward, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning("%s: not read: %s", self._toward, error.strerror)
            return []
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return []
            try:
                found = json.loads(stream.read(_TOWARD_BYTES))
                return [str(ipaddress.ip_address(str(each))) for each in found[:TOWARD]]
            except (ValueError, TypeError, KeyError, RecursionError):
                return []

    def withdraw(self) -> None:
        """Remove the directory unless the agent's user keeps other files in it. The loader calls this."""
        with contextlib.suppress(OSError):
            for path in (self.path, self._toward):
                path.unlink(missing_ok=True)
            self.directory.rmdir()


def _write(path: Path, content: object) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "w", encoding="utf-8") as stream:
        # The loader runs as root without the right to override permissions, and the agent's umask is strict.
        os.fchmod(descriptor, 0o644)
        json.dump(content, stream)
        stream.write("\n")


class Asking:
    """Schedules requests to the loader. All times are monotonic seconds.

    The first request goes out at once, the next after 5 s, 10 s and so on, up to 5 minutes. A change of the interface
    or of the address restarts the schedule. A plane that fails again for the same proof within :data:`STABLE` waits
    until 5 s after the last request, the next time 10 s, and so on. A plane that fails now and then thus returns at
    once, while one that passes its proof but does not carry packets does not flap.
    """

    def __init__(self, request: Request, count: Callable[[str], None]) -> None:
        self._request = request
        self._count = count
        self._tries = 0
        self._repeats = 0  # failures for the same proof after the first one
        self._proof = ""
        self._wanted = False
        self._answered = True  # whether the loader was asked since a plane failed
        self._at = self._asked = self._worked = -math.inf
        self._place: object = None
        self._hard: object = None
        self._soft: object = None
        self._complaint = ""
        self._waits_since = math.inf  # since when the same request lies there
        #: Addresses that packets go to.
        self.toward: tuple[str, ...] = ()

    @property
    def delay(self) -> float:
        """Seconds from the next request to the one after it."""
        return _delay(self._tries)

    @property
    def due(self) -> float:
        """Time of the next request."""
        return self._at if self._wanted else math.inf

    @property
    def answer_by(self) -> float:
        """Time until which the loader may still be working on the last request."""
        return self._asked + ANSWER

    def failed(self, proof: str, now: float) -> None:
        """Note that a plane in use has failed: ask at once, or with a delay if the same proof failed shortly before."""
        self._repeats = self._repeats + 1 if proof == self._proof else 0
        self._tries = self._repeats
        self._at = max(now, self._asked + (_delay(self._repeats - 1) if self._repeats else SPACING))
        self._proof, self._wanted, self._answered = proof, True, False

    def want(self, now: float) -> None:
        """Note that there is no plane, or that a better mode is possible: keep asking."""
        if not self._wanted:
            self._wanted, self._at = True, now + self.delay

    def hurry(self, now: float) -> None:
        """Ask at once if anything is wanted: what the loader saw may no longer hold."""
        self._at = max(now, self._asked + SPACING)

    def content(self, since: float, now: float) -> None:
        """Note that the best possible plane is in use, and has worked since ``since``."""
        self._wanted = False
        if self.carries(since, now):
            self._tries = 0

    def carries(self, since: float, now: float) -> bool:
        """Note that a plane has worked since ``since``.

        Returns whether that is long enough to forget earlier failures.
        """
        if now - since <= max(STABLE, _delay(self._repeats)):
            return False
        self._repeats, self._proof = 0, ""
        return True

    def may_take(self, now: float, changed: bool) -> bool:
        """Whether a plane may be taken into use.

        A plane that failed may be used once the loader has proved it again, which it writes down (``changed``). If no
        loader answers, the plane is tried once more anyway, because the cause may be gone.
        """
        patience = ANSWER if self._request.there() else FIRST
        return changed or (self._answered and now >= self._asked + patience)

    def loader_worked(self, now: float) -> None:
        """Note that the loader has written its state."""
        self._worked = now

    def other_interface(self) -> None:
        """Note that the next facts describe another interface, so that they do not count as a change."""
        self._hard = self._soft = None

    def follow(self, facts: Facts | None, ours: int, now: float) -> bool:
        """Take new facts. Returns True if they changed such that asking starts over. ``ours``: id of our program."""
        interface = facts.interface if facts is not None else None
        if facts is None:
            return False
        place = (facts.owners, facts.ways)
        hard = (interface and (interface.index, interface.name, interface.up, interface.mtu, interface.mac),)
        # On other kinds the features follow our own program.
        features = interface.features if interface is not None and interface.kind == "veth" else None
        soft = interface and (interface.running, features, interface.programs - {ours})
        changed = (self._hard is not None and hard != self._hard) or (self._place is not None and place != self._place)
        self._hard, self._place = hard, place
        if now - max(self._worked, self._asked) >= SETTLE:
            changed = changed or (self._soft is not None and soft != self._soft)
            self._soft = soft
        elif self._soft is None:
            self._soft = soft
        if changed:
            self._tries, self._repeats, self._proof = 0, 0, ""
            if self._wanted:
                self._at = max(now, self._asked + SPACING)
        return changed

    def attend(self, reason: str, now: Now) -> None:
        """Ask the loader if a request is due."""
        if now.mono < self.due:
            return
        self._asked, self._answered = now.mono, True
        self._at = now.mono + self.delay
        self._tries += 1
        if not self._request.waits():
            self._waits_since = now.mono
        try:
            self._request.write(reason, now.wall_ns / 1e9, self.toward)
        except OSError as error:
            self._count("plane_ask_failed")
            text = f"{self._request.path}: {error.strerror}"
            if text != self._complaint:
                self._complaint = text
                _log.warning("the loader cannot be asked: %s", text)
            return
        self._complaint = ""
        self._count("plane_asked")
        _log.info("asked the loader to look again: %s", reason)

    def words(self) -> str:
        """What happens next, in words for status and log."""
        if not self._request.there():
            remedy = "systemctl reload-or-restart xdp-gossip-dataplane"
            return f"nothing asks the loader ({self._request.directory} is not there): {remedy}"
        # A loader at work takes it when it has ended.
        if self._asked - self._waits_since >= ANSWER and self._request.waits():
            remedy = "is xdp-gossip-dataplane.path started, and does it watch this file?"
            return f"nobody takes the request {self._request.path}: {remedy}"
        return f"the loader is asked every {FIRST:g} to {MOST:g} s, and at once when interface, address or route change"


def _delay(tries: int) -> float:
    return float(min(MOST, FIRST * 2 ** min(tries, 10)))
