# SPDX-License-Identifier: MIT
"""``host.py NUMBER``: a member inside a guest, in one mode of the data plane after the other. Runs in the guest.

The product's own loader and agent work here with the distribution's packages; the agent is an unprivileged user, in the
strictest setting of ``kernel.unprivileged_bpf_disabled``. What was seen goes into ``MODE.json`` beside this file; the
test outside says with a file ``MODE.go`` that the next mode may begin.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

SHARE = Path(__file__).resolve().parent
COMMAND = SHARE / "product" / "agent" / "bin" / "xdp-gossip"
RUN = Path("/run/member")
PLANE = Path("/run/plane")
USER, GROUP = "nobody", "nogroup"
INTERFACE = "eth0"
#: Patience with a machine that is emulated by a busy one.
SECONDS = 600.0


def command(*words: str, check: bool = True) -> str:
    """The output of a command. Raises ``RuntimeError`` with what it said when it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + (done.stderr if not check else "")


def product(*words: str, check: bool = True) -> str:
    """The product's command."""
    return command(str(COMMAND), *words, check=check)


def counters() -> dict[str, int]:
    """Those of the kernel data plane."""
    return dict(json.loads(product("dataplane", "status", "--directory", str(PLANE), "--json"))["counters"])


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Member:
    """This guest's agent."""

    def __init__(self, number: int, name: str, protocol: str) -> None:
        self.name, self.number = name, number
        self.config = RUN / "agent.yml"
        self.socket = str(RUN / "api.sock")
        self.key = f"from/{number}/{name}"
        secret = RUN / "secret.key"
        secret.write_text("the secret of the guests\n")
        settings: dict[str, Any] = {
            "node": {"addr": f"198.18.61.{number}", "port": 8000, "name": f"guest{number}", "private_data": ""},
            "protocol": protocol,
            "cycle": 2,
            "secret_key_file": str(secret),
            "state_dir": str(RUN / "state"),
            "seeds": ["198.18.61.100:8000"],
            "api": {"socket": self.socket},
            "dataplane": {"directory": str(PLANE)},
        }
        self.config.write_text(json.dumps(settings))
        for path in (secret, self.config):
            path.chmod(0o600)
        command("chown", "-R", f"{USER}:{GROUP}", str(RUN))

    def start(self) -> subprocess.Popen[bytes]:
        """The agent, without any privilege."""
        rights = ("--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")
        words = ("setpriv", f"--reuid={USER}", f"--regid={GROUP}", *rights, str(COMMAND), "agent")
        with (SHARE / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(
                (*words, "--config", str(self.config)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def publish_again(self) -> bool:
        """One more rumor: the first may have come before the other guest's plane was up, which no rumor waits for."""
        return self.call("PUT", f"/v1/documents/again/{self.number}", str(time.monotonic()).encode()) is not None

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """What the API answers, None when it does not serve yet. To start a command takes seconds under emulation."""
        connection = _UnixConnection(self.socket)
        try:
            with contextlib.closing(connection):
                connection.request(method, path, body)
                answer = connection.getresponse()
                said = answer.read()
                return json.loads(said) if answer.status < 300 else None
        except (OSError, HTTPException):
            return None

    def ask(self, *words: str) -> Any:
        """What a command prints as JSON. Raises ``RuntimeError``."""
        return json.loads(product(*words, "--socket", self.socket, "--json"))


def until(what: str, holds: Any) -> None:
    """Wait until ``holds()``. Raises ``RuntimeError``."""
    end = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"not seen within {SECONDS:g} s: {what}")
        time.sleep(0.5)


def alive(member: Member) -> int:
    """How many members this one sees alive."""
    return len((member.call("GET", "/v1/nodes?state=alive") or {"nodes": ()})["nodes"])


def in_use(member: Member, seen: dict[str, Any]) -> bool:
    """Whether packets go through the kernel; the status is noted, and why they do not."""
    seen["status"] = member.ask("status")
    if seen["status"]["mode"] != "UDP":
        return True
    if seen["status"]["mode_reason"] not in seen["stepped_down"]:
        seen["stepped_down"].append(seen["status"]["mode_reason"])
    return False


def works() -> bool:
    """Whether the kernel has done everything that it is for."""
    now = counters()
    return all(now[name] for name in ("take_heartbeat", "take_metadata", "relay", "copy", "fanout", "fanout_copy"))


def one(number: int, name: str, protocol: str, mtu: str) -> None:
    """One mode: up, a member among three, a document published, everything counted, down."""
    command("ip", "link", "set", INTERFACE, "mtu", mtu)
    RUN.mkdir(exist_ok=True)
    member = Member(number, name, protocol)
    seen: dict[str, Any] = {
        "up": product("dataplane", "up", "--config", str(member.config), "--user", USER, check=False)
    }
    agent = member.start()
    try:
        until("the agent answers", lambda: agent.poll() is not None or member.call("GET", "/v1/health") is not None)
        if agent.poll() is not None:
            raise RuntimeError(f"the agent ended: {(SHARE / f'{name}.log').read_text()}")
        until("three members are alive", lambda: alive(member) == 3)
        command(str(COMMAND), "publish", member.key, "--value", name, "--wait", "all", "--socket", member.socket)
        # An emulated machine that stands still for a while may leave a cycle's work undone, and the agent then steps
        # down until the loader has looked again: what counts is that it comes back.
        seen["stepped_down"] = []
        until("the plane is in use", lambda: in_use(member, seen))
        until("the kernel works", lambda: works() or not member.publish_again())
        until("the plane is in use", lambda: in_use(member, seen))
        seen["dataplane"] = json.loads(product("dataplane", "status", "--directory", str(PLANE), "--json", check=False))
        seen["doctor"] = product("doctor", "--config", str(member.config), "--socket", member.socket, check=False)
        seen["tainted"] = int(Path("/proc/sys/kernel/tainted").read_text())
        seen["dmesg"] = command("dmesg", check=False)[-4000:]
        (SHARE / f"{name}.json.new").write_text(json.dumps(seen))
        os.replace(SHARE / f"{name}.json.new", SHARE / f"{name}.json")
        until("the test goes on", lambda: (SHARE / f"{name}.go").exists() or not member.publish_again())
    finally:
        agent.terminate()
        agent.wait(60)
        product("dataplane", "down", "--directory", str(PLANE), check=False)


def main() -> None:
    """``modes.json`` lists (name, protocol, MTU)."""
    number = int(sys.argv[1])
    command("sysctl", "-qw", "kernel.unprivileged_bpf_disabled=2") if Path("/sbin/sysctl").exists() else Path(
        "/proc/sys/kernel/unprivileged_bpf_disabled"
    ).write_text("2")
    command("ip", "link", "set", INTERFACE, "up")
    command("ip", "addr", "add", f"198.18.61.{number}/24", "dev", INTERFACE)
    for name, protocol, mtu in json.loads((SHARE / "modes.json").read_text()):
        one(number, name, protocol, mtu)


if __name__ == "__main__":
    main()
