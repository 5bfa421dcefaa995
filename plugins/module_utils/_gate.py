# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: judges an agent by what it says of itself, and by what another member says of it.

A module imports the first half. As a script, ``_gate.py QUESTION`` is the second half: the role ``agent`` runs it on
another host, the witness. QUESTION is a JSON object: ``socket`` (of the witness's agent), ``addr`` and ``port`` (the
node to judge), and what must hold: ``version`` (of the node's agent, "" for any), ``incarnation`` (the least, 0 for
any), ``documents`` (bool: the node must hold what the witness holds), within ``timeout`` seconds; 0 asks once. It
prints ``{"answered": true, "passed": bool, "unmet": [sentence, ...], "elapsed": seconds}``. When the witness's agent
does not answer within a few seconds, it prints nothing and exits with status 1.

Runs on targets: standard library only, Python 3.8 or later. Nothing of this collection is imported, as the script
travels alone.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
import typing as t

#: Seconds that one answer may take.
ANSWER = 20.0
#: The same for a witness, and the seconds that a witness which does not answer gets to begin with it.
WITNESS_ANSWER = 10.0
PATIENCE = 5.0
#: Seconds between two questions to a witness, or a few times what an answer takes: a large NodeList is work for it.
PAUSE = 0.1
PAUSE_FACTOR = 4
#: Bytes of an answer. 20,000 nodes with the most private data have less.
LIMIT = 256 * 1024 * 1024
#: How many of the other members are told by name: a controller with many hosts has no use for all of them from each.
TOLD = 20


class Unanswered(Exception):
    """The agent cannot be asked; ``str()`` says why."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket. Raises ``OSError``."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, question: str, seconds: float = ANSWER) -> dict[str, t.Any]:
    """The agent's answer to a GET at its socket, each read within ``seconds``. Raises ``Unanswered``."""
    connection = _Connection(path, seconds)
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
    """What must hold of the agent by its own words, and what it said at the last look.

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


class Witness:
    """What must hold of a node by the words of another member, and what of it did at the last look.

    ``question``: as for the script.
    """

    def __init__(self, question: dict[str, t.Any]) -> None:
        self._question = question
        # Every state that the witness was seen in since the question was put. Under a stream of publishes the two are
        # hardly ever seen equal at one moment; but a node that shows any of these holds all that was there to begin
        # with.
        self._states: set[str] = set()
        #: What does not hold, a sentence each; empty when all does.
        self.unmet: list[str] = []

    def look(self) -> bool:
        """Whether everything holds in the witness's present NodeList. Raises ``Unanswered``."""
        question = self._question
        found = ask(question["socket"], "/v1/nodes?state=all", WITNESS_ANSWER).get("nodes")
        if found is None:
            raise Unanswered("%s: expected a list of nodes" % question["socket"])
        self._states.update(node["digest"] for node in found if node["local"])
        where = (question["addr"], int(question["port"]))
        node = next((node for node in found if (node["addr"], node["port"]) == where), None)
        name = "%s:%d" % where
        if node is None:
            self.unmet = ["does not know %s" % name]
            return False
        unmet = []
        if node["state"] != "alive":
            unmet.append("expected %s to be alive, sees it %s" % (name, node["state"]))
        version = question.get("version", "")
        if version and node["version"] != version:
            unmet.append("expected version %s of it, sees %s" % (version, node["version"] or "none"))
        least, shown = int(question.get("incarnation", 0)), node["incarnation"]
        # 0 stands for "no run is known".
        if least and not (shown and (shown == least or later(shown, least))):
            unmet.append("expected incarnation %d of it or later, sees %d" % (least, shown))
        if question.get("documents") and node["digest"] not in self._states:
            unmet.append("expected it to hold the same documents, sees others (documents digest %s)" % node["digest"])
        self.unmet = unmet
        return not unmet


def testify(question: dict[str, t.Any]) -> dict[str, t.Any]:
    """Look until all holds or the time is over. Raises ``Unanswered`` when the witness never answers."""
    begin = time.monotonic()
    deadline = begin + float(question.get("timeout", 0))
    patience = min(PATIENCE, deadline - begin)
    witness = Witness(question)
    answered = False
    while True:
        asked = time.monotonic()
        try:
            passed = witness.look()
            answered = True
        except Unanswered as error:
            passed = False
            if not answered and asked - begin >= patience:
                raise
            witness.unmet = ["did not answer: %s" % error]
        now = time.monotonic()
        if passed or (answered and now >= deadline):
            return {"answered": True, "passed": passed, "unmet": witness.unmet, "elapsed": round(now - begin, 1)}
        time.sleep(max(PAUSE, PAUSE_FACTOR * (now - asked)))


def main() -> int:
    """Answer the question given as the only argument."""
    try:
        json.dump(testify(json.loads(sys.argv[1])), sys.stdout)
    except Unanswered as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
