# SPDX-License-Identifier: MIT
"""The first process of a world (see world.py): puts its files and addresses there, runs its agents.

    unshare --mount --net --pid --fork --kill-child supervisor.py WORLD.json

Standard library only. Prints a JSON object with the process id as seen from outside once all agents see each other, and
ends when its standard input does; with it, the kernel ends all processes in the world and takes mounts and addresses.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

#: Seconds until the agents must see each other.
START_SECONDS = 60.0


def run(*command: str) -> None:
    """Run a command of the set-up."""
    subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)


def private_files(world: dict) -> None:
    """Give the world a /run, /tmp and /etc of its own; what happens there, happens to nobody else."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    # The checkout and the test's directory may be below /tmp.
    for number, path in enumerate(world["keep"]):
        aside = f"/run/aside{number}"
        os.mkdir(aside)
        run("mount", "--bind", path, aside)
    run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp")
    for number, path in enumerate(world["keep"]):
        Path(path).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", f"/run/aside{number}", path)
    copy = Path(world["directory"]) / "etc"
    shutil.copytree("/etc", copy, symlinks=True, ignore_dangling_symlinks=True)
    run("mount", "--bind", str(copy), "/etc")
    for path, (text, mode) in world["files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        Path(path).chmod(mode)
    run("mount", "-t", "proc", "proc", "/proc")
    # An example that changes more than it says is to fail, and not to change this machine.
    for path in ("/", world["checkout"]):
        run("mount", "-o", "remount,bind,ro", path)


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=40)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def knows(path: str) -> int:
    """How many members the agent at a socket holds for alive and knows the names of."""
    connection = Connection(path)
    try:
        connection.request("GET", "/v1/nodes?state=alive")
        return sum(node["record_known"] for node in json.loads(connection.getresponse().read())["nodes"])
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return 0
    finally:
        connection.close()


def start(world: dict) -> None:
    """Start the agents and wait for them; exits with their logs when that takes too long."""
    logs = []
    agents = []
    for number, agent in enumerate(world["agents"]):
        Path(agent["socket"]).parent.mkdir(parents=True, exist_ok=True)
        logs.append(Path(world["directory"]) / f"agent{number}.log")
        with logs[-1].open("wb") as log:
            command = [world["command"], "agent", "--config", agent["config"]]
            agents.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    deadline = time.monotonic() + START_SECONDS
    while not all(knows(agent["socket"]) == len(agents) for agent in world["agents"]):
        if time.monotonic() > deadline or any(agent.poll() is not None for agent in agents):
            sys.exit("the agents do not see each other:\n" + "\n".join(log.read_text() for log in logs))
        time.sleep(0.05)


def main() -> None:
    """Set up, report, wait for the end."""
    world = json.loads(Path(sys.argv[1]).read_text())
    # As long as /proc is the one outside, this is our number there.
    pid = int(os.readlink("/proc/self"))
    run("ip", "link", "set", "lo", "up")
    for address in world["addresses"]:
        run("ip", "address", "add", address, "dev", "lo")
    private_files(world)
    start(world)
    print(json.dumps({"pid": pid}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
