# SPDX-License-Identifier: MIT
"""``refusal.py``: the product on a kernel that is too old for its data plane. Runs in the guest.

``refusal.json`` says what the loader answers, and what the agent, its status and doctor say after it.
"""

from __future__ import annotations

import json
import subprocess
import time

import devices

SOCKET = "/run/member/api.sock"


def agent_says() -> dict[str, object]:
    """The status of an agent that was started; it answers or this fails. Raises ``RuntimeError``."""
    config = str(devices.RUN / "agent.yml")
    with (devices.SHARE / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            (str(devices.COMMAND), "agent", "--config", config), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + devices.SECONDS
        while True:
            status, output = devices.told(str(devices.COMMAND), "status", "--socket", SOCKET, "--json")
            if status == 0:
                return dict(json.loads(output))
            if agent.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the agent does not answer: {(devices.SHARE / 'agent.log').read_text()}")
            time.sleep(0.5)
    finally:
        agent.terminate()
        agent.wait(60)


def main() -> None:
    """The loader alone, then the agent."""
    devices.must("ip", "link", "add", "xgk0", "type", "veth", "peer", "xgk1")
    devices.must("ip", "link", "set", "xgk1", "up")
    devices.must("ip", "link", "set", "xgk0", "up")
    seen = devices.loaded("xgk0", "auto", keep=True)
    settings = json.loads((devices.RUN / "agent.yml").read_text())
    settings["api"] = {"socket": SOCKET}
    (devices.RUN / "agent.yml").write_text(json.dumps(settings))
    seen["agent"] = agent_says()
    (devices.SHARE / "refusal.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
