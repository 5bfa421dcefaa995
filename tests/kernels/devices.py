# SPDX-License-Identifier: MIT
"""``devices.py``: what the kernel and the loader say of each virtio interface. Runs in the guest.

``cases.json`` lists the interfaces by MAC. To each, with each MTU, a program that passes every frame is attached in
native mode, and the driver's answer is kept. Then the loader is asked for the modes that the case lists. All of it goes
into ``devices.json``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

SHARE = Path(__file__).resolve().parent
COMMAND = SHARE / "product" / "agent" / "bin" / "xdp-gossip"
PLANE, RUN = Path("/run/plane"), Path("/run/member")
PINNED = "/sys/fs/bpf/pass"
#: Patience with a machine that is emulated by a busy one.
SECONDS = 1200.0
_SYSCALL_BPF, _PROG_LOAD, _OBJ_PIN, _XDP = 321, 5, 6, 6


def told(*words: str) -> tuple[int, str]:
    """Status and output of a command, errors included."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
    )
    return done.returncode, done.stdout


def must(*words: str) -> str:
    """The output of a command. Raises ``RuntimeError`` with what it said when it fails."""
    status, output = told(*words)
    if status:
        raise RuntimeError(f"{' '.join(words)}: status {status}: {output}")
    return output


def pin_pass() -> None:
    """Pin ``return XDP_PASS``. Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0), 16)
    licence, path = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(PINNED.encode())

    def bpf(command: int, attributes: bytes) -> int:
        room = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
        result = libc.syscall(_SYSCALL_BPF, command, room, 144)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), PINNED)
        return int(result)

    program = bpf(_PROG_LOAD, struct.pack("<IIQQ", _XDP, 2, ctypes.addressof(code), ctypes.addressof(licence)))
    bpf(_OBJ_PIN, struct.pack("<QII", ctypes.addressof(path), program, 0))
    os.close(program)


def tainted() -> int:
    """The kernel's taint flags."""
    return int(Path("/proc/sys/kernel/tainted").read_text())


def attached(name: str, mode: str) -> dict[str, Any]:
    """Attach, look and detach; what the kernel says to it (its answer, and what it logs)."""
    told("dmesg", "--clear")
    status, output = told("ip", "link", "set", "dev", name, mode, "pinned", PINNED)
    _, log = told("dmesg", "--notime")
    if status == 0:
        must("ip", "link", "set", "dev", name, mode, "off")
    return {"status": status, "says": output.strip(), "dmesg": log.strip()[-3000:], "tainted": tainted()}


def loaded(name: str, protocol: str, *, keep: bool = False) -> dict[str, Any]:
    """The loader's answer, its status and what doctor says. ``keep``: leave the interface as it is then."""
    RUN.mkdir(exist_ok=True)
    secret, config = RUN / "secret.key", RUN / "agent.yml"
    secret.write_text("the secret of the guests\n")
    settings = {
        "node": {"addr": "198.18.61.1", "port": 8000, "name": "guest", "private_data": ""},
        "protocol": protocol,
        "secret_key_file": str(secret),
        "state_dir": str(RUN / "state"),
        "dataplane": {"directory": str(PLANE)},
    }
    config.write_text(json.dumps(settings))
    for path in (secret, config):
        path.chmod(0o600)
    must("ip", "addr", "add", "198.18.61.1/24", "dev", name)
    try:
        status, output = told(str(COMMAND), "dataplane", "up", "--config", str(config), "--user", "root")
        _, state = told(str(COMMAND), "dataplane", "status", "--directory", str(PLANE), "--json")
        _, doctor = told(str(COMMAND), "doctor", "--config", str(config))
        if not keep:
            told(str(COMMAND), "dataplane", "down", "--directory", str(PLANE))
    finally:
        if not keep:
            must("ip", "addr", "flush", "dev", name)
    with contextlib.suppress(ValueError):
        return {"status": status, "says": output, "state": json.loads(state), "doctor": doctor, "tainted": tainted()}
    raise RuntimeError(f"dataplane status: expected JSON, got {state!r}; up said {output!r}")


def write(seen: dict[str, Any]) -> None:
    """Hand out what was seen so far."""
    (SHARE / "devices.json.new").write_text(json.dumps(seen, indent=1))
    os.replace(SHARE / "devices.json.new", SHARE / "devices.json")


def main() -> None:
    """Every device by itself, then with the loader; last what taints the kernel, as it stays so."""
    pin_pass()
    names = {Path(f"/sys/class/net/{name}/address").read_text().strip(): name for name in os.listdir("/sys/class/net")}
    asked = json.loads((SHARE / "cases.json").read_text())
    seen: dict[str, Any] = {"release": os.uname().release, "cases": {case["name"]: {} for case in asked}}
    for case in asked:
        name, here = names[case["mac"]], seen["cases"][case["name"]]
        must("ip", "link", "set", name, "up")
        here["features"], here["channels"] = told("ethtool", "-k", name)[1], told("ethtool", "-l", name)[1]
        for mtu in case["mtus"]:
            must("ip", "link", "set", name, "mtu", str(mtu))
            here[f"native {mtu}"] = attached(name, "xdpdrv")
        must("ip", "link", "set", name, "mtu", "1500")
        write(seen)
    for case in asked:
        for protocol, mtu in case["load"]:
            must("ip", "link", "set", names[case["mac"]], "mtu", str(mtu))
            seen["cases"][case["name"]][f"load {protocol} {mtu}"] = loaded(names[case["mac"]], protocol)
            write(seen)
    seen["generic"] = {case["name"]: attached(names[case["mac"]], "xdpgeneric") for case in asked if case["generic"]}
    write(seen)


if __name__ == "__main__":
    main()
