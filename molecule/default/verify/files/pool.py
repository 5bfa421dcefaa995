# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish or remove N documents, or rebuild a host that has these documents.

Usage, as root: ``pool.py publish|remove|rebuild N``. ``rebuild`` deletes the agent's state while nginx serves a file
that is rendered from all documents. ``rebuild`` requests the file from nginx ten times a second until the agent has
rendered it again, and fails if one answer was not the complete file.
"""

import http.client
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

API = "/run/xdp-gossip/api.sock"
STATE = pathlib.Path("/var/lib/xdp-gossip")
BATCH = 64
SECONDS = 300


class Connection(http.client.HTTPConnection):
    """HTTP connection over the agent's Unix socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(API)


def call(method, path, body=None):
    """Send a request to the agent and return the answer as JSON. Exits the script if the status is not 200."""
    connection = Connection("localhost")
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{method} {path}: {answer.status} {text[:500]!r}")
    return json.loads(text)


def write(count, entry):
    """Write ``count`` documents in batches; ``entry`` maps the number of a document to its entry."""
    for start in range(0, count, BATCH):
        documents = [entry(number) for number in range(start, min(count, start + BATCH))]
        call("POST", "/v1/documents", {"documents": documents})


def key(number):
    return f"pool/{number:05}"


def served():
    with urllib.request.urlopen("http://127.0.0.1:8080/pool", timeout=10) as answer:
        return answer.read().decode()


def applied():
    """Return whether the restarted agent has fetched all documents and rendered the file."""
    try:
        status, templates = call("GET", "/v1/status"), call("GET", "/v1/rendered")["templates"]
    except OSError:
        return False
    (found,) = [entry for entry in templates if entry["name"] == "pool"]
    return status["caught_up"] and found["state"] == "applied"


def until(true, what):
    """Wait until the function ``true`` returns true. After ``SECONDS``, exit the script with ``what`` as the reason."""
    deadline = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {SECONDS} s")
        time.sleep(0.1)


def rebuild(count):
    """Delete the agent's state, restart the agent, and check every answer of nginx until the file is rendered again."""
    expected = "".join(f"{number};" for number in range(count))  # Jinja removes the newline after the end of the loop
    until(lambda: served() == expected, "the whole file, before")
    subprocess.run(["systemctl", "stop", "xdp-gossip.service"], check=True)
    for file in STATE.glob("state.db*"):
        file.unlink()
    subprocess.run(["systemctl", "start", "xdp-gossip.service"], check=True)
    answers = []

    def ask():
        answers.append(served())
        return applied()

    until(ask, "the file rendered again")
    answers.append(served())
    wrong = [len(answer) for answer in answers if answer != expected]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(answers)} answers were not the whole file, their bytes: {wrong[:20]}")
    print(f"{len(answers)} answers, all of them the whole file")


def main():
    what, count = sys.argv[1], int(sys.argv[2])
    if what == "publish":
        write(count, lambda number: {"key": key(number), "value": str(number)})
    elif what == "remove":
        write(count, lambda number: {"key": key(number), "delete": True})
    else:
        rebuild(count)


main()
