# SPDX-License-Identifier: MIT
"""Decides when the agent asks the loader to check the data plane again, and writes the request file.

The agent has no privilege, so it cannot start the loader. The loader creates a directory ``ask`` that belongs to the
agent. When the file ``request`` appears in this directory, systemd starts the loader (``xdp-gossip-dataplane.path``).
The loader first removes the file. So a request that the agent makes while a loader runs is not lost: the request starts
the next loader.

The request also contains the destination addresses of the agent's packets. If only the loopback interface has the
node's address, the loader attaches the data plane to the interface that a route to these destinations uses.
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

#: Names of the directory for requests (inside the loader's directory), of the request file, and of the file with the
#: destination addresses of the agent's packets.
ASK, REQUEST, _TOWARD_FILE = "ask", "request", "toward"
#: Shortest and longest pause in seconds between two requests while no facts change. Each pause is twice the previous
#: pause.
FIRST, MOST = 5.0, 300.0
#: Minimum seconds between two requests, also when facts change.
SPACING = 1.0
#: For this many seconds after a request, the agent checks often for the loader's result. If there is no result by then,
#: the agent tries a failed data plane again without one.
ANSWER = 30.0
#: For this many seconds after a request, or after the loader has written its state, the agent assumes that the loader
#: caused any change of carrier, features and programs: drivers reset when a program is attached. If the facts still
#: differ after this time, the agent treats the difference as a change.
SETTLE = 10.0
#: A data plane must work for this many seconds before its earlier failure is forgotten.
STABLE = 60.0
#: Maximum number of destination addresses that the agent passes to the loader, and maximum bytes that the loader reads
#: from the file with these addresses.
TOWARD, _TOWARD_BYTES = 16, 4096


class Request:
    """The two files with which the agent asks the loader to check again: the request, and the destination addresses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / ASK
        self.path = self.directory / REQUEST
        self._toward = self.directory / _TOWARD_FILE

    def there(self) -> bool:
        """Whether the directory ``ask`` exists. Without the directory, systemd cannot notice a request."""
        return self.directory.is_dir()

    def waits(self) -> bool:
        """Whether a request is waiting: the request file exists until the next loader removes it."""
        return self.path.exists()

    def write(self, reason: str, at: float, toward: Sequence[str] = ()) -> None:
        """Ask the loader to check again.

        Raises ``OSError`` if the file cannot be written, for example because the loader has not created the directory.

        ``toward`` contains the destination addresses of the agent's packets; an empty list keeps the addresses of the
        last request.
        """
        if toward:
            _write(self._toward, list(toward[:TOWARD]))
        _write(self.path, {"reason": reason, "at": at})

    def toward(self) -> list[str]:
        """Return the destination addresses that the agent has stored for the loader.

        The loader calls this method as root, so the method validates what the agent wrote.
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
        """Remove the directory unless it contains other files of the agent's user. The loader calls this method."""
        with contextlib.suppress(OSError):
            for path in (self.path, self._toward):
                path.unlink(missing_ok=True)
            self.directory.rmdir()


def _write(path: Path, content: object) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "w", encoding="utf-8") as stream:
        # The loader must be able to read the file: it runs as root, but without the capability to bypass file
        # permissions. The agent's umask would deny read access.
        os.fchmod(descriptor, 0o644)
        json.dump(content, stream)
        stream.write("\n")


class Asking:
    """Schedules requests to the loader. All times are monotonic seconds.

    The first request is due at once, the second request 5 s later, the third request another 10 s later, and so on;
    pauses grow up to 5 minutes. A change of the interface or of the address restarts the schedule. If a data plane
    fails again with the same finding before it has worked for :data:`STABLE` seconds, the next request is due 5 s after
    the last request. Each further early failure with the same finding doubles the pause. So a data plane that fails now
    and then is restored at once. A data plane that passes the loader's check but delivers no packets is tried less and
    less often.
    """

    def __init__(self, request: Request, count: Callable[[str], None]) -> None:
        self._request = request
        self._count = count
        self._tries = 0
        self._repeats = 0  # number of repeated failures with the same finding
        self._proof = ""
        self._wanted = False
        self._answered = True  # whether the agent has asked the loader since the data plane failed
        self._at = self._asked = self._worked = -math.inf
        self._place: object = None
        self._hard: object = None
        self._soft: object = None
        self._complaint = ""
        self._waits_since = math.inf  # Time at which the agent first wrote the request that is still waiting.
        #: Destination addresses of the agent's packets.
        self.toward: tuple[str, ...] = ()

    @property
    def delay(self) -> float:
        """Seconds between the next request and the request after that."""
        return _delay(self._tries)

    @property
    def due(self) -> float:
        """The time of the next request; infinity if none is planned."""
        return self._at if self._wanted else math.inf

    @property
    def answer_by(self) -> float:
        """The time until which the loader may still be processing the last request."""
        return self._asked + ANSWER

    def failed(self, proof: str, now: float) -> None:
        """Plan a request after the data plane in use has failed.

        The request is due at once, or later if the data plane failed with the same finding shortly before.
        """
        self._repeats = self._repeats + 1 if proof == self._proof else 0
        self._tries = self._repeats
        self._at = max(now, self._asked + (_delay(self._repeats - 1) if self._repeats else SPACING))
        self._proof, self._wanted, self._answered = proof, True, False

    def want(self, now: float) -> None:
        """Plan requests, unless requests are planned already.

        The caller calls this method if no data plane is loaded, or if a better mode may be possible.
        """
        if not self._wanted:
            self._wanted, self._at = True, now + self.delay

    def hurry(self, now: float) -> None:
        """Make a planned request due at once, because the conditions that the loader saw may have changed."""
        self._at = max(now, self._asked + SPACING)

    def content(self, since: float, now: float) -> None:
        """Cancel planned requests: the best possible data plane is in use, and has worked since ``since``."""
        self._wanted = False
        if self.carries(since, now):
            self._tries = 0

    def carries(self, since: float, now: float) -> bool:
        """Record that the data plane has worked from the time ``since`` until ``now``.

        Returns True if the data plane has worked long enough that its earlier failures are forgotten.
        """
        if now - since <= max(STABLE, _delay(self._repeats)):
            return False
        self._repeats, self._proof = 0, ""
        return True

    def may_take(self, now: float, changed: bool) -> bool:
        """Whether a data plane may be used again after a failure.

        The data plane may be used once the loader has recorded a new successful check (``changed``). If no loader
        answers, the data plane is tried again after a while, because the cause may have disappeared.
        """
        patience = ANSWER if self._request.there() else FIRST
        return changed or (self._answered and now >= self._asked + patience)

    def loader_worked(self, now: float) -> None:
        """Record that the loader has written its state at ``now``."""
        self._worked = now

    def other_interface(self) -> None:
        """Forget the previous facts.

        The next facts are about another interface, so a comparison would find a false change.
        """
        self._hard = self._soft = None

    def follow(self, facts: Facts | None, ours: int, now: float) -> bool:
        """Compare new facts with the previous facts.

        If the facts differ, restarts the request schedule and returns True; otherwise returns False.

        ``ours``: id of the data plane's own program. The comparison of facts ignores the data plane's own program.
        """
        interface = facts.interface if facts is not None else None
        if facts is None:
            return False
        place = (facts.owners, facts.ways)
        hard = (interface and (interface.index, interface.name, interface.up, interface.mtu, interface.mac),)
        # Compare the features of a veth only: on interfaces of other kinds, our own program changes the features.
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
        """Write a request if one is due."""
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
        """Describe the next step in words, for the status and the log."""
        if not self._request.there():
            remedy = "systemctl reload-or-restart xdp-gossip-dataplane"
            return f"nothing asks the loader ({self._request.directory} is not there): {remedy}"
        # A request waits until the running loader has finished.
        if self._asked - self._waits_since >= ANSWER and self._request.waits():
            remedy = "is xdp-gossip-dataplane.path started, and does it watch this file?"
            return f"nobody takes the request {self._request.path}: {remedy}"
        return f"the loader is asked every {FIRST:g} to {MOST:g} s, and at once when interface, address or route change"


def _delay(tries: int) -> float:
    return float(min(MOST, FIRST * 2 ** min(tries, 10)))
