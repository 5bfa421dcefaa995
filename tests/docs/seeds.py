# SPDX-License-Identifier: MIT
"""Let a fleet hold exactly some documents, and wait until every member does.

seeds.py SOCKET DOCUMENTS.json
"""

from __future__ import annotations

import json
import sys
from urllib.parse import quote

from supervisor import Connection


def ask(socket: str, method: str, path: str, body: bytes | None = None) -> dict:
    """One request to the agent; its answer. RuntimeError when it refuses."""
    connection = Connection(socket)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text!r}")
        return json.loads(text)
    finally:
        connection.close()


def main(socket: str, wanted: dict[str, str]) -> None:
    """Delete what is not wanted, publish what is, wait for all members."""
    for document in ask(socket, "GET", "/v1/documents")["documents"]:
        if document["key"] not in wanted and not document["deleted"]:
            ask(socket, "DELETE", f"/v1/documents/{quote(document['key'])}")
    for key, value in wanted.items():
        ask(socket, "PUT", f"/v1/documents/{quote(key)}", value.encode())
    if not ask(socket, "GET", "/v1/convergence?wait=all&timeout=30")["converged"]:
        raise RuntimeError("expected all members to hold the documents within 30 s")


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        main(sys.argv[1], json.load(file))
