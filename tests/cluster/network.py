# SPDX-License-Identifier: MIT
"""A network that falls in two and heals: network namespaces of the test's own, nothing in the host's."""

from __future__ import annotations

import contextlib
import os
import subprocess

from tests.support.fleet import Agent

PORT = 8000


def ip(*words: str, check: bool = True) -> str:
    """Run ip(8), for ten seconds at most."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0 or not check, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


class Network:
    """Hosts 1 to ``count`` as namespaces, joined by one of two bridges in a namespace of its own."""

    def __init__(self, count: int) -> None:
        tag = f"xgt{os.getpid()}"
        self.hub = f"{tag}h"
        self.hosts = [f"{tag}n{number}" for number in range(1, count + 1)]

    def __enter__(self) -> Network:
        try:
            ip("netns", "add", self.hub)
            for bridge in ("br0", "br1"):
                ip("-n", self.hub, "link", "add", bridge, "type", "bridge")
                ip("-n", self.hub, "link", "set", bridge, "up")
            for number, host in enumerate(self.hosts, 1):
                ip("netns", "add", host)
                end = ("peer", "name", "eth0", "netns", host)
                ip("-n", self.hub, "link", "add", f"port{number}", "type", "veth", *end)
                ip("-n", self.hub, "link", "set", f"port{number}", "master", "br0", "up")
                ip("-n", host, "address", "add", f"198.18.128.{number}/24", "dev", "eth0")
                ip("-n", host, "link", "set", "lo", "up")
                ip("-n", host, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Links end with their namespaces.
        for name in (self.hub, *self.hosts):
            with contextlib.suppress(subprocess.TimeoutExpired):
                ip("netns", "delete", name, check=False)

    def split(self, numbers: list[int]) -> None:
        """These hosts on the second bridge, cut off from all others."""
        for number in numbers:
            ip("-n", self.hub, "link", "set", f"port{number}", "master", "br1")

    def heal(self) -> None:
        """All on one bridge again."""
        for number in range(1, len(self.hosts) + 1):
            ip("-n", self.hub, "link", "set", f"port{number}", "master", "br0")


def move(agent: Agent, host: str) -> None:
    """Let the agent run on ``host`` of the network; its API stays in the file system."""
    agent.ip, agent.port = f"198.18.128.{agent.number}", PORT
    agent.address = f"{agent.ip}:{PORT}"
    agent.prefix = ("ip", "netns", "exec", host)
    agent.settings["node"].update(addr=agent.ip, port=PORT)
    agent.settings["listen_addr"] = "0.0.0.0"
