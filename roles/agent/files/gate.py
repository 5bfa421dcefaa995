# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge another host of the fleet by what the agent of this one knows of it; print the judgement as JSON.

Usage: ``gate.py QUESTION``, run on the witness. QUESTION is a JSON object: ``socket`` (of the witness's agent),
``addr`` and ``port`` (the node to judge), and what it must be: ``version`` (of its agent, "" for any), ``incarnation``
(at least), ``documents`` (bool: it must hold what the witness holds), within ``timeout`` seconds; 0 asks once.
Answer: ``{"answered": true, "passed": bool, "unmet": [sentence, ...], "elapsed": seconds}``. Nothing is printed and the
exit status is 1 when the witness's agent does not answer within a few seconds.

Runs on the target under whatever Python is there, hence no newer syntax and only the standard library.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time

#: Seconds that one answer of the witness may take, and that an agent which does not answer gets to begin with it.
ANSWER = 10.0
PATIENCE = 5.0
#: Seconds between two questions, or a few times what an answer takes: a large NodeList is work for the agent.
PAUSE = 0.1
PAUSE_FACTOR = 4
#: Bytes of a NodeList. 20,000 nodes with the most private data have less.
LIMIT = 256 * 1024 * 1024


class Unanswered(Exception):
    """The agent cannot be asked; ``str()`` says why."""


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket. Raises ``OSError``."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def nodes(path: str) -> list[dict]:
    """The whole NodeList of the agent at the socket. Raises ``Unanswered``."""
    connection = Connection(path)
    try:
        connection.request("GET", "/v1/nodes?state=all")
        answer = connection.getresponse()
        body = answer.read(LIMIT)
        if answer.status != 200:
            raise Unanswered("expected status 200, got %d" % answer.status)
        return json.loads(body.decode("utf-8"))["nodes"]
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise Unanswered("%s: %s" % (path, error)) from None
    finally:
        connection.close()


class Judge:
    """What must hold, and what of it did at the last look."""

    def __init__(self, question: dict) -> None:
        self._question = question
        # Every state that the witness was seen in since the question was put. Under a stream of publishes the two are
        # hardly ever seen equal at one moment; but a node that shows any of these holds all that was there to begin
        # with.
        self._states: set[str] = set()
        self.unmet: list[str] = []

    def look(self, found: list[dict]) -> bool:
        """Whether everything holds in this NodeList."""
        question = self._question
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
        least = int(question.get("incarnation", 0))
        # Serial numbers of 32 bits (RFC 1982); 0 stands for "no run is known".
        if least and not (node["incarnation"] and (node["incarnation"] - least) % 2**32 < 2**31):
            unmet.append("expected incarnation %d of it or later, sees %d" % (least, node["incarnation"]))
        if question.get("documents") and node["digest"] not in self._states:
            unmet.append("expected it to hold the same documents, sees others (documents digest %s)" % node["digest"])
        self.unmet = unmet
        return not unmet


def judge(question: dict) -> dict:
    """Look until all holds or the time is over. Raises ``Unanswered`` when the agent never answers."""
    begin = time.monotonic()
    deadline = begin + float(question.get("timeout", 0))
    patience = min(PATIENCE, deadline - begin)
    judged = Judge(question)
    answered = False
    while True:
        asked = time.monotonic()
        try:
            passed = judged.look(nodes(question["socket"]))
            answered = True
        except Unanswered as error:
            passed = False
            if not answered and asked - begin >= patience:
                raise
            judged.unmet = ["did not answer: %s" % error]
        now = time.monotonic()
        if passed or (answered and now >= deadline):
            return {"answered": True, "passed": passed, "unmet": judged.unmet, "elapsed": round(now - begin, 1)}
        time.sleep(max(PAUSE, PAUSE_FACTOR * (now - asked)))


def main() -> int:
    """Answer the question given as the only argument."""
    try:
        json.dump(judge(json.loads(sys.argv[1])), sys.stdout)
    except Unanswered as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
