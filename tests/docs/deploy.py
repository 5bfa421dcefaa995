# SPDX-License-Identifier: MIT
"""Does in a world what the playbook ``deploy`` does on hosts: it writes settings of the role, and reloads the agents.

usage: deploy.py WORLD.json VALUES.json      with the role's variables by name
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from supervisor import Connection

#: Seconds until all agents must have applied their settings.
SECONDS = 30.0


def merged(former: Any, new: Any) -> Any:
    """``new`` over ``former``, as the role merges its variable ``xdp_gossip_agent_config_extra``."""
    if isinstance(former, dict) and isinstance(new, dict):
        return {**former, **{key: merged(former.get(key), value) for key, value in new.items()}}
    return new


def settings_of(former: dict[str, Any], values: dict[str, Any], number: int) -> dict[str, Any]:
    """The settings of an agent. All agents of a world share /var/lib, so each has an audit file of its own."""
    known = {"xdp_gossip_agent_signers", "xdp_gossip_agent_api_tokens", "xdp_gossip_agent_config_extra"}
    if unknown := set(values) - known:
        sys.exit(f"expected {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
    settings = {**former, "signers": values.get("xdp_gossip_agent_signers", [])}
    settings["api"] = {**former["api"], "tokens": values.get("xdp_gossip_agent_api_tokens", [])}
    settings = merged(settings, values.get("xdp_gossip_agent_config_extra", {}))
    if number and "audit_file" in settings["api"]:
        settings["api"]["audit_file"] += f"-{number}"
    return settings


def reload(config: str) -> None:
    """Tell the agent with this configuration to read it again."""
    for entry in Path("/proc").glob("[0-9]*"):
        words = (entry / "cmdline").read_bytes().split(b"\0")
        if words[-4:-1] == [b"agent", b"--config", config.encode()]:
            os.kill(int(entry.name), signal.SIGHUP)


def differs(socket: str) -> str:
    """What the agent at a socket has not applied yet."""
    connection = Connection(socket)
    try:
        connection.request("GET", "/v1/configuration")
        answer = json.loads(connection.getresponse().read())
        return ", ".join([*answer["reload"], *answer["restart"], *answer["problems"]])
    finally:
        connection.close()


def main() -> None:
    """Write, reload, and wait until every agent has the new settings."""
    world, values = (json.loads(Path(name).read_text()) for name in sys.argv[1:])
    if not Path("/var/lib/xdp-gossip").is_dir():
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"], check=True, timeout=30)
        os.mkdir("/var/lib/xdp-gossip", 0o700)
    for number, agent in enumerate(world["agents"]):
        path = Path(agent["config"])
        path.write_text(json.dumps(settings_of(json.loads(path.read_text()), values, number)))
        reload(agent["config"])
    deadline = time.monotonic() + SECONDS
    while missing := [text for text in (differs(agent["socket"]) for agent in world["agents"]) if text]:
        if time.monotonic() > deadline:
            sys.exit(f"agents have not applied: {missing}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
