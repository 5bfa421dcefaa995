# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates, starts, stops and removes one host, and waits until it answers.

The directory <lab_dir>/hosts/<name> contains `host.json` (written last, so a host without it is incomplete),
`process.json` (the systemd-nspawn process and its start time), `upper` and `work` (the layers of the overlay), and
`root` (the mount point of the overlay).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from . import cgroups, network
from .config import Config, Host
from .system import LabError, ProcessId, read_json, remove_tree, run, unmount_under, wait_until, write_file

STOP_TIMEOUT = 20.0
POWER_OFF = signal.SIGRTMIN + 4
"""Signal that makes systemd as PID 1 power off, see systemd(1)."""


def is_complete(host: Host, image: Path, config: Config) -> bool:
    """Return whether the host's disk is complete, and was created from `image` with the host's current addresses."""
    return read_json(host.folder / "host.json") == _description(host, image, config)


def create(host: Host, image: Path, config: Config) -> None:
    """Create the host's disk again from the image, and leave the disk mounted."""
    remove_tree(host.folder)
    for name in ("upper", "work", "root"):
        (host.folder / name).mkdir(parents=True)
    mount(host, image)
    prefix, prefix6 = config.gateway.rpartition("/")[2], config.gateway6.rpartition("/")[2]
    write_file(host.root / "etc/hostname", host.name + "\n")
    write_file(
        host.root / "etc/hosts",
        f"127.0.0.1 localhost\n::1 localhost\n{host.address} {host.name}\n{host.address6} {host.name}\n",
    )
    write_file(
        host.root / "etc/systemd/network/10-lab.network",
        "[Match]\nName=host0\n\n[Network]\n"
        # The network has no IPv6 router. Waiting for a router would delay network-online.target by 14 seconds.
        "IPv6AcceptRA=no\nLinkLocalAddressing=ipv6\nLLMNR=no\n"
        f"Address={host.address}/{prefix}\n\n[Address]\nAddress={host.address6}/{prefix6}\nDuplicateAddressDetection=none\n",
    )
    ssh = host.root / "root/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    write_file(ssh / "authorized_keys", config.key_file.with_suffix(".pub").read_text(encoding="ascii"), 0o600)
    write_file(host.folder / "host.json", json.dumps(_description(host, image, config)) + "\n")


def image_of(host: Host) -> Path:
    """Return the image from which the host was created.

    Raises LabError if the host is incomplete, or if the image is no longer in the cache.
    """
    value = read_json(host.folder / "host.json")
    image = value.get("image") if value is not None else None
    if not isinstance(image, str) or not Path(image).is_dir():
        raise LabError(
            f"{host.name}: its disk is incomplete or its image is missing; run the role with lab_state present"
        )
    return Path(image)


def _description(host: Host, image: Path, config: Config) -> dict[str, str]:
    key = config.key_file.with_suffix(".pub")
    return {
        "image": str(image),
        "address": host.address,
        "address6": host.address6,
        "network": config.network,
        "network6": config.network6,
        "key": key.read_text(encoding="ascii").strip() if key.exists() else "",
    }


def mount(host: Host, image: Path) -> None:
    """Mount the host's overlay. First unmount the mounts that a crash may have left. Raises LabError."""
    unmount_under(host.folder)
    options = f"lowerdir={image},upperdir={host.folder}/upper,workdir={host.folder}/work"
    done = run(["mount", "-t", "overlay", "overlay", "-o", options, str(host.root)], check=False)
    if done.returncode != 0:
        raise LabError(
            f"{host.root}: overlay mount failed: {done.stderr.strip()}; lab_dir must be on a local file system such as "
            "ext4, xfs or tmpfs, not itself on an overlay"
        )


def process(host: Host) -> ProcessId | None:
    """Return the systemd-nspawn process of the host, or None if the host does not run."""
    recorded = ProcessId.load(host.folder / "process.json")
    return recorded if recorded is not None and recorded.alive() else None


def init_of(nspawn: ProcessId) -> ProcessId | None:
    """Return the host's init, which is the child of systemd-nspawn with number 1 in its own PID namespace, or None if
    there is no such child.
    """
    for child in nspawn.children():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8", errors="replace")
            if re.search(r"^NSpid:.*\s1$", status, re.MULTILINE):
                return child
    return None


def start(config: Config, host: Host) -> None:
    """Start the host. The function returns while the host boots; `wait_ready` waits until the host has booted.

    Raises LabError if the host's disk is incomplete, if another program owns an interface with the name of the host's
    veth, or if systemd-nspawn cannot be run.
    """
    image = image_of(host)
    clear(config, host)
    if not wait_until(lambda: network.interface(host.interface) is None, 5.0):
        raise LabError(
            f"{host.interface}: an interface of this name exists and is not this lab's; choose another lab_name"
        )
    mount(host, image)
    host.log.parent.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    if os.fork() == 0:
        _become_nspawn(config, host, writer)
    os.close(writer)
    # A successful exec closes the pipe, so any text in the pipe is the reason why exec failed.
    with os.fdopen(reader, encoding="utf-8", errors="replace") as stream:
        reason = stream.read()
    if reason:
        raise LabError(f"{host.name}: systemd-nspawn not started: {reason}")


def _become_nspawn(config: Config, host: Host, errors: int) -> None:
    """Start a new session, record this process, and execute systemd-nspawn.

    This function runs in a forked child, and never returns.
    """
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(host.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        # The child process writes the record of the process itself before it executes systemd-nspawn. A crash of the
        # caller therefore cannot leave a running host without a record. Process number and start time survive exec.
        ProcessId.of(os.getpid()).save(host.folder / "process.json")
        command = _command(config, host)
        if not cgroups.systemd_runs_machine():
            cgroups.enter(config, host)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        os.execvp(command[0], command)
    except BaseException as error:
        os.write(errors, str(error).encode())
    finally:
        os._exit(127)


def _command(config: Config, host: Host) -> list[str]:
    command = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=read-only",
        f"--directory={host.root}",
        f"--machine={host.name}",
        f"--network-bridge={config.bridge}",
        "--capability=all",
        # systemd-nspawn blocks bpf(2) even with all capabilities, and the agent's loader needs bpf(2) to load the data
        # plane.
        "--system-call-filter=bpf",
        "--boot",
    ]
    if cgroups.systemd_runs_machine():
        # With --scope, systemd-run executes the command in its own process, so the recorded process number stays valid.
        unit = cgroups.scope(config, host)
        return [
            "systemd-run",
            "--scope",
            "--quiet",
            "--collect",
            f"--unit={unit}",
            "--property=Delegate=yes",
            "--",
            *command,
        ]
    return command


def wait_ready(config: Config, host: Host, timeout: float) -> str:
    """Wait at most `timeout` seconds until the host has booted and answers over ssh. Returns systemd's state.

    The state of the host is `running`, or `degraded` if units have failed. Raises LabError if the host dies, or if it
    is not ready after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    last = "its ssh server has made no host key yet"
    attempts = 0
    while time.monotonic() < deadline:
        if process(host) is None:
            raise LabError(f"{host.name}: died while booting; the end of {host.log}:\n{_tail(host.log)}")
        if record_host_key(host):
            attempts += 1
            left = max(deadline - time.monotonic(), 1.0)
            try:
                done = ssh(config, host, "systemctl is-system-running --wait", timeout=left)
            except LabError as error:
                # The deadline has interrupted this attempt, so the error of an earlier attempt is more useful.
                last = str(error) if attempts == 1 else last
            else:
                state = done.stdout.strip()
                if state in ("running", "degraded") and time.monotonic() < deadline:
                    return state
                # An attempt gets at least a second, so the host may answer after the deadline.
                last = done.stderr.strip() or state or f"ssh ended with status {done.returncode}"
        time.sleep(0.1)
    raise LabError(
        f"{host.name}: not ready after {timeout:g} s, {attempts} attempts ({last}); {network.describe(host)}; "
        f"the end of {host.log}:\n{_tail(host.log)}"
    )


def failed_units(config: Config, host: Host) -> str:
    """Return the names of the host's failed units, separated by commas."""
    listing = ssh(config, host, "systemctl list-units --failed --plain --no-legend", timeout=15).stdout
    return ", ".join(line.split()[0] for line in listing.splitlines() if line.split())


def ssh(config: Config, host: Host, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command on the host as root over ssh. ssh checks the host key against the key on the host's disk."""
    options = {
        "UserKnownHostsFile": f"{host.folder}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "ConnectTimeout": "2",
        "ServerAliveInterval": "5",
        "LogLevel": "ERROR",
        "ControlPath": "none",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return run(
        ["ssh", "-F", "none", "-i", str(config.key_file), *flags, f"root@{host.address}", command],
        timeout=timeout,
        check=False,
    )


def record_host_key(host: Host) -> bool:
    """Write a known_hosts file with the public ssh key on the host's disk. Return whether the disk already contains a
    key.

    Because the key comes from the disk and not from the network, ssh need not trust the host on first use.
    """
    path = host.root / "etc/ssh/ssh_host_ed25519_key.pub"
    try:
        words = path.read_text(encoding="ascii").split()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    if len(words) < 2:
        return False
    write_file(host.folder / "known_hosts", f"{host.address},{host.address6},{host.name} {words[0]} {words[1]}\n")
    return True


def cut_power(config: Config, host: Host) -> bool:
    """Simulate a power cut: kill the host's init with SIGKILL. Return whether the host was on."""
    nspawn = process(host)
    if nspawn is None:
        return False
    (init_of(nspawn) or nspawn).send(signal.SIGKILL)
    if not wait_until(lambda: not nspawn.alive(), 10.0):
        nspawn.send(signal.SIGKILL)
    clear(config, host)
    return True


def shut_down(config: Config, host: Host) -> bool:
    """Ask the host to power off, and kill the host if it is still on after STOP_TIMEOUT seconds.

    Return whether the host was on at first.
    """
    nspawn = process(host)
    if nspawn is not None:
        init = init_of(nspawn)
        if init is not None:
            init.send(POWER_OFF)
            wait_until(lambda: not nspawn.alive(), STOP_TIMEOUT)
        for victim in (init_of(nspawn), nspawn):
            if victim is not None:
                victim.send(signal.SIGKILL)
        wait_until(lambda: not nspawn.alive(), 10.0)
    clear(config, host)
    return nspawn is not None


def clear(config: Config, host: Host) -> None:
    """Remove from the machine everything that a stopped host has left: processes, veth, ssh connections and mounts."""
    cgroups.sweep(config, host)
    network.detach(config, host)
    for path in sorted((config.home / "cp").glob(f"*@{host.address}:*")):
        # The control socket leads to a dead connection, so an ssh client that used this socket would hang.
        run(
            ["ssh", "-F", "none", "-O", "exit", "-o", f"ControlPath={path}", host.address],
            timeout=5,
            check=False,
        )
        path.unlink(missing_ok=True)
    unmount_under(host.folder)
    # If systemd-nspawn is killed, the directory that it uses for mount propagation remains. With newer versions of
    # systemd-nspawn, a mounted directory for sockets also remains.
    for name in ("propagate", "unix-export"):
        left = Path("/run/systemd/nspawn") / name / host.name
        if left.is_dir():
            unmount_under(left)
            with contextlib.suppress(OSError):
                left.rmdir()
    (host.folder / "process.json").unlink(missing_ok=True)


def remove(config: Config, host: Host) -> None:
    """Shut the host down and delete its disk."""
    shut_down(config, host)
    remove_tree(host.folder)
    host.log.unlink(missing_ok=True)


def _tail(path: Path, lines: int = 15) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "(no log)"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)
    return "\n".join(plain.splitlines()[-lines:])
