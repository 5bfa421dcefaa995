# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks an agent's health with the answers of the agent itself and with the answers of
another member.

Modules import the class ``Gate``, which asks the agent itself. The role ``agent`` also runs this file as a script,
``_gate.py QUESTION``, on another host, which is called the witness.

QUESTION is a JSON object. ``socket`` is the Unix socket of the witness's agent. ``addr`` and ``port`` identify the node
to check. Three keys are the conditions that the node must meet. ``version`` is the version of the node's agent ("" for
any version). ``incarnation`` is the lowest allowed incarnation of the node (0 for any incarnation). ``documents`` is
true if the node must have the same documents as the witness. The script asks the witness's agent until all conditions
are met or ``timeout`` seconds have passed. With ``timeout`` 0, the script asks only once. The script prints
``{"answered": true, "passed": bool, "unmet": [sentence, ...], "elapsed": seconds}``. If the witness's agent does not
answer within a few seconds, the script prints nothing and exits with status 1.

The file runs on managed hosts, so it needs only the standard library of Python 3.8 or later. The file imports nothing
from this collection, because the role copies only this file to the witness.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
import typing as t

#: Timeout, in seconds, of a request to the agent itself.
ANSWER = 20.0
#: Timeout, in seconds, of a request to a witness. The first answer of a witness must also arrive within this time.
WITNESS_ANSWER = 10.0
PATIENCE = 5.0
#: Pause between two requests to a witness: at least PAUSE seconds, and at least PAUSE_FACTOR times the duration of the
#: last request, because a large NodeList is much work for the witness.
PAUSE = 0.1
PAUSE_FACTOR = 4
#: Maximum bytes of an answer. The NodeList of 20,000 nodes with the longest possible private data is smaller than this
#: limit.
LIMIT = 256 * 1024 * 1024
#: Maximum number of other members that a result names. Without this limit, every result in a large fleet would contain
#: the names of all hosts.
TOLD = 20


class Unanswered(Exception):
    """Raised if the agent gave no usable answer; ``str()`` says why."""


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
    """Send a GET request to the agent's socket and return the JSON object in the answer.

    Each read must complete within ``seconds``. Raises ``Unanswered``.
    """
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
    """Return whether the incarnation ``now`` is later than the incarnation ``before``. Every incarnation is later than
    -1.

    Incarnations are 32-bit serial numbers (RFC 1982): a number is later if it is ahead by less than half of the range.
    """
    return before < 0 or 0 < (now - before) % 2**32 < 2**31


class Gate:
    """Checks an agent with the answers of its own API, and stores its last answers.

    ``wanted`` has the keys ``socket``, ``version``, ``above`` (the agent's incarnation must be later; -1 for any) and
    ``others`` (the minimum number of other members whose state is alive in the agent's NodeList).
    """

    def __init__(self, wanted: dict[str, t.Any]) -> None:
        self._wanted = wanted
        self.status: dict[str, t.Any] = {}
        self.alive: list[str] = []
        #: Sentence that describes the condition that is not met; empty if all conditions are met.
        self.unmet = ""

    def runs(self) -> bool:
        """Return whether the agent answers, runs, has the expected version, and has a later incarnation than
        ``above``.
        """
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
        """Return whether the agent's NodeList contains at least ``others`` other members that are alive."""
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
        """Return the outcome of the last check in the form of a module's result."""
        return {
            "passed": not self.unmet,
            "unmet": self.unmet,
            "status": self.status,
            "others": len(self.alive),
            "alive": self.alive[:TOLD],
        }


class Witness:
    """Checks a node with the NodeList of another member, the witness. Stores the conditions that the last check found
    unmet.

    ``question`` is the JSON object QUESTION that the module's docstring describes.
    """

    def __init__(self, question: dict[str, t.Any]) -> None:
        self._question = question
        # Stores all documents digests that the witness has had since the first check. Under a stream of publishes, the
        # digests of witness and node are rarely equal at the same moment. A node with any of the stored digests has
        # every document that existed at the first check.
        self._states: set[str] = set()
        #: The conditions that are not met, one sentence each; empty if all conditions are met.
        self.unmet: list[str] = []

    def look(self) -> bool:
        """Return whether the witness's current NodeList meets all conditions. Raises ``Unanswered``."""
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
        # Incarnation 0 means that the witness does not know the node's incarnation.
        if least and not (shown and (shown == least or later(shown, least))):
            unmet.append("expected incarnation %d of it or later, sees %d" % (least, shown))
        if question.get("documents") and node["digest"] not in self._states:
            unmet.append("expected it to hold the same documents, sees others (documents digest %s)" % node["digest"])
        self.unmet = unmet
        return not unmet


def testify(question: dict[str, t.Any]) -> dict[str, t.Any]:
    """Ask the witness's agent until all conditions are met or the timeout has passed. Returns the object that the
    script prints.

    Raises ``Unanswered`` if the witness's agent does not answer in time.
    """
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
    """Print the answer to the question in the first command-line argument. Returns the exit status."""
    try:
        json.dump(testify(json.loads(sys.argv[1])), sys.stdout)
    except Unanswered as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
