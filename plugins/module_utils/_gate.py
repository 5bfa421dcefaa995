# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: judges the agent of this host by its own words, over its socket. Python 3.8 or later.

The first half of a gate. What another member says is the other half, ``files/gate.py`` of the role.
"""

from __future__ import annotations

import http.client
import json
import socket
import typing as t

#: Seconds that an answer may take, and its bytes: 20,000 nodes with the most private data have less.
ANSWER = 20.0
LIMIT = 256 * 1024 * 1024
#: How many of the other members are told by name: a controller with many hosts has no use for all of them from each.
TOLD = 20


class Unanswered(Exception):
    """The agent cannot be asked; ``str()`` says why."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket. Raises ``OSError``."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, question: str) -> dict[str, t.Any]:
    """The agent's answer to a GET at its socket. Raises ``Unanswered``."""
    connection = _Connection(path)
    try:
        connection.request("GET", question)
        answer = connection.getresponse()
        body = answer.read(LIMIT)
        if answer.status != 200:
            raise Unanswered("%s: expected status 200 for %s, got %d" % (path, question, answer.status))
        found = json.loads(body.decode("utf-8"))
        if not isinstance(found, dict):
            raise Unanswered("%s: expected an object for %s" % (path, question))
        return found
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unanswered("%s: %s" % (path, error)) from None
    finally:
        connection.close()


def later(now: int, before: int) -> bool:
    """Whether an incarnation is above another one, any being above -1.

    Incarnations are serial numbers of 32 bits (RFC 1982): one that is less than half the range ahead is later.
    """
    return before < 0 or 0 < (now - before) % 2**32 < 2**31


class Gate:
    """What must hold of the agent, and what it said at the last look.

    ``wanted``: ``socket``, ``version``, ``above`` (the incarnation that its own must exceed, -1 for any) and
    ``others`` (how many other members it must see alive).
    """

    def __init__(self, wanted: dict[str, t.Any]) -> None:
        self._wanted = wanted
        self.status: dict[str, t.Any] = {}
        self.alive: list[str] = []
        #: What does not hold, in words; empty when all does.
        self.unmet = ""

    def runs(self) -> bool:
        """Whether the agent answers, runs, and is the one that is expected."""
        wanted = self._wanted
        try:
            self.status = status = ask(wanted["socket"], "/v1/status")
            state, version, incarnation = status["state"], status["version"], status["node"]["incarnation"]
        except Unanswered as error:
            self.unmet = str(error)
            return False
        except (KeyError, TypeError):
            self.unmet = "%s: expected a status with state, version and node" % wanted["socket"]
            return False
        self.unmet = ""
        if state not in ("running", "paused"):
            self.unmet = "expected it to run, it says %s" % state
        elif version != wanted["version"]:
            self.unmet = "expected version %s, it says %s" % (wanted["version"], version)
        elif not later(incarnation, wanted["above"]):
            self.unmet = "expected another process than before, it says incarnation %d" % incarnation
        return not self.unmet

    def sees(self) -> bool:
        """Whether it sees as many other members as it must."""
        try:
            nodes = ask(self._wanted["socket"], "/v1/nodes?state=alive")["nodes"]
            self.alive = [str(node["name"]) for node in nodes if not node["local"]]
        except Unanswered as error:
            self.unmet = str(error)
            return False
        except (KeyError, TypeError):
            self.unmet = "%s: expected a list of nodes" % self._wanted["socket"]
            return False
        few = len(self.alive) < self._wanted["others"]
        self.unmet = (
            "expected it to see %d other member(s), it sees %d" % (self._wanted["others"], len(self.alive))
            if few
            else ""
        )
        return not few

    def told(self) -> dict[str, t.Any]:
        """The outcome, as a module returns it."""
        return {
            "passed": not self.unmet,
            "unmet": self.unmet,
            "status": self.status,
            "others": len(self.alive),
            "alive": self.alive[:TOLD],
        }
