# SPDX-License-Identifier: MIT
"""Runs an agent, and writes the arrival time of each document to a file.

usage: probe.py FILE agent --config CONFIG

Each document whose value is a decimal number adds 16 bytes to FILE: the CLOCK_MONOTONIC time in ns, and the decimal
number. The probe receives the documents from ``AsyncNodeList.watch``. The probe does not query the API, because queries
would cost more processor time than the measured operation.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "agent"))

from xdp_gossip.config import agent as config
from xdp_gossip.nodelist import AsyncNodeList
from xdp_gossip.service import daemon, logs

RECORD = struct.Struct("=QQ")


async def note_arrivals(node_list: AsyncNodeList, path: str) -> None:
    """Write the arrival time of every document to the file ``path``, until the node list is closed."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        async for change in node_list.watch(kind="document"):
            now = time.monotonic_ns()
            if change.kind == "resync":
                raise RuntimeError("expected every change of the node list, missed some")
            if change.document is not None and change.document.value.isdigit():
                os.write(file, RECORD.pack(now, int(change.document.value)))
    finally:
        os.close(file)


async def run(settings: config.AgentConfig, path: str) -> int:
    """Run an agent until it is stopped, and record arrivals once it has joined. Returns the exit status."""
    agent = daemon.Agent(settings)

    async def follow() -> None:
        await agent.ready.wait()
        try:
            await note_arrivals(agent.node_list, path)
        except Exception as error:
            agent.fail("the probe cannot follow the agent", error)

    following = asyncio.ensure_future(follow())
    try:
        return await agent.run()
    finally:
        following.cancel()
        await asyncio.wait({following})


def main() -> int:
    """Parse the command line, run the agent, and return the exit status."""
    parser = argparse.ArgumentParser(prog="probe")
    parser.add_argument("file")
    parser.add_argument("command", choices=["agent"])
    parser.add_argument("--config", required=True)
    args = parser.parse_args()
    settings = config.load(args.config)
    logs.configure(settings.log.level, settings.log.format)
    return asyncio.run(run(settings, args.file))


if __name__ == "__main__":
    sys.exit(main())
