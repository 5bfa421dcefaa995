# SPDX-License-Identifier: MIT
"""Start a fleet of real agents in a network namespace of their own, and end it with the process that wanted it.

    fleet.py --agent COMMAND --owner PID [--count N] [--timeout SECONDS]

Prints one JSON object once every member sees all others: ``directory``, ``sockets`` (of the API), ``pids``,
``addresses``, and ``silent``, a socket on which nobody ever answers. Exit status 1, with the logs, when that takes too
long. The fleet goes on in the background. It ends, and its directory is removed, when the process ``PID`` ends, however
that comes about: a failing play needs no clean-up of its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

#: Documentation's network for benchmarks: real enough for the inventory, which refuses loopback addresses.
NETWORK = "198.18.77"
PORT = 8000
#: Bytes of documents that the third member has room for.
LITTLE = 2 * 1024 * 1024
#: Seconds until the members must see each other.
START_SECONDS = 60.0
#: Seconds that a fleet may live at most, should its owner never end.
LIFE_SECONDS = 900.0


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def address_of(number: int) -> str:
    """The address of a member, counted from 1."""
    return f"{NETWORK}.{10 + number}"


def alive(path: Path) -> int:
    """How many members the one behind a socket holds for alive and knows the names of; 0 when it does not answer."""
    connection = Connection(path)
    try:
        connection.request("GET", "/v1/nodes?state=alive")
        return sum(node["record_known"] for node in json.loads(connection.getresponse().read())["nodes"])
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return 0
    finally:
        connection.close()


def write_config(directory: Path, number: int, timeout: float) -> Path:
    """The configuration of one member; the first one is the seed of the others."""
    address = address_of(number)
    config = {
        "cluster": "integration",
        "node": {"addr": address, "port": PORT, "name": f"host{number}"},
        "listen_addr": address,
        "zone": {1: "a", 2: "b"}.get(number, ""),
        "protocol": "UDP",
        "cycle": 0.3,
        "timeout": timeout,
        "secret_key_file": str(directory / "secret"),
        "seeds": [] if number == 1 else [f"{address_of(1)}:{PORT}"],
        "state_dir": str(directory / f"state{number}"),
        "api": {"socket": str(directory / f"n{number}.sock")},
    }
    if number == 3:  # it refuses what is long, so the tests have a member that lags for certain
        config["limits"] = {"store": LITTLE}
    path = directory / f"n{number}.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def start(directory: Path, agent: str, configs: list[Path]) -> list[subprocess.Popen[bytes]]:
    """Give the namespace its addresses and start the agents. Each one ends with this process."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
    agents = []
    for number, config in enumerate(configs, 1):
        subprocess.run(["ip", "address", "add", address_of(number) + "/32", "dev", "lo"], check=True, timeout=10)
        with open(directory / f"n{number}.log", "wb") as log:
            agents.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", agent, "agent", "--config", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
    return agents


def wait_for_end(owner: int) -> None:
    """Return when the process ``owner`` has ended, or this one is asked to end, or the fleet has lived too long."""
    read, write = os.pipe()
    signal.signal(signal.SIGTERM, lambda *unused: os.close(write))
    poll = select.poll()
    poll.register(read, select.POLLIN)
    try:
        # Unlike a process id, this cannot come to mean another process.
        poll.register(os.pidfd_open(owner), select.POLLIN)
    except ProcessLookupError:
        return
    poll.poll(LIFE_SECONDS * 1000)


def supervise(directory: Path, arguments: argparse.Namespace, report: t.TextIO) -> None:
    """Run the fleet to its end; the first line of ``report`` says that it is complete, or why not."""
    numbers = range(1, arguments.count + 1)
    configs = [write_config(directory, number, arguments.timeout) for number in numbers]
    sockets = [directory / f"n{number}.sock" for number in numbers]
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    silent.bind(str(directory / "silent.sock"))
    silent.listen(16)
    agents = start(directory, arguments.agent, configs)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not all(alive(path) == arguments.count for path in sockets):
            if time.monotonic() > deadline or any(agent.poll() is not None for agent in agents):
                logs = [(directory / f"n{number}.log").read_text() for number in numbers]
                states = ["ended" if agent.poll() is not None else "runs" for agent in agents]
                report.write(f"the members do not see each other ({', '.join(states)}):\n" + "\n".join(logs))
                return
            time.sleep(0.05)
        result = {
            "directory": str(directory),
            "sockets": [str(path) for path in sockets],
            "pids": [agent.pid for agent in agents],
            "addresses": [address_of(number) for number in numbers],
            "silent": str(directory / "silent.sock"),
        }
        report.write(json.dumps(result) + "\n")
        report.flush()
        detach()
        wait_for_end(arguments.owner)
    finally:
        for agent in agents:
            agent.kill()
            agent.wait(10)


def detach() -> None:
    """Let go of the pipes that the caller waits on."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def main() -> int:
    """Parse the arguments; go into the background; return when the fleet is complete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", required=True, help="path of the command xdp-gossip")
    parser.add_argument("--owner", required=True, type=int, help="process with which the fleet ends")
    parser.add_argument("--count", type=int, default=3, choices=range(1, 10), help="members (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=6.0, help="the agents' timeout in seconds (%(default)s)")
    parser.add_argument("--supervise", metavar="DIRECTORY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.supervise:
        supervise(Path(arguments.supervise), arguments, sys.stdout)
        return 0
    if not os.access(arguments.agent, os.X_OK):
        parser.error(f"--agent: expected the path of the command xdp-gossip, got {arguments.agent!r}")

    # Short, because the path of a Unix socket may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="xg-", dir="/tmp"))
    (directory / "secret").write_text("xgk1_rDk23OF242z0NZUhLSxexiIEILfCI-s-9VLke6OCpec\n")
    (directory / "secret").chmod(0o600)
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        with os.fdopen(read) as answer:
            text = answer.read()
        complete = text.startswith("{")
        (sys.stdout if complete else sys.stderr).write(text)
        return 0 if complete else 1
    # In the background, away from the terminal and the pipes that Ansible waits on.
    os.setsid()
    for descriptor in (1, 2):
        os.dup2(write, descriptor)
    os.close(write)
    try:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        supervisor = ["unshare", *user, "--net", sys.executable, *sys.argv, "--supervise", str(directory)]
        process = subprocess.Popen(supervisor, stdin=subprocess.DEVNULL)
        detach()
        process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
