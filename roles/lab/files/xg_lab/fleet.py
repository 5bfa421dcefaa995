# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates, changes and removes the whole lab.

`plan` changes nothing. You may interrupt `present` and `absent` at any point and run them again, because these
functions compare the settings with the actual state of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import hosts, image, inventory, limits, network
from .config import Config, Host
from .system import LabError, locked, mounts_under, read_json, remove_tree, run, write_file

PARALLEL = 32
LOCK_TIMEOUT = 120.0
LAB_FILES = ("config.json", "inventory.yml")
LAB_FOLDERS = ("hosts", "logs", "ssh", "cp")


def existing(config: Config) -> list[Host]:
    """Return all hosts that have a directory in the lab, whatever their state, ordered by number."""
    folder = config.home / "hosts"
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    found = []
    for name in sorted(names, key=lambda name: (len(name), name)):
        # Hosts that were created with another lab_name still belong to the lab in this directory.
        stem = name.rstrip("0123456789")
        found.append(_renamed(config, stem).host(name))
    return found


def _renamed(config: Config, name: str) -> Config:
    return replace(config, name=name)


def stored(config: Config) -> Config:
    """Return the settings that the lab in this directory has stored, or `config` if the settings are missing or not
    readable.
    """
    value = read_json(config.home / "config.json")
    try:
        return config if value is None else Config.from_object(value)
    except LabError:
        return config


def plan(config: Config, state: str) -> list[str]:
    """Return the steps that `present` or `absent` would take, one line for each step. Changes nothing."""
    if state == "absent":
        config = stored(config)
        steps = [f"remove {host.name}" for host in existing(config)]
        found = network.interface(config.bridge)
        if found is not None and network.is_ours(config, found):
            steps.append(f"remove bridge {config.bridge}")
        return [*steps, *([f"remove {config.dir}"] if config.home.exists() else [])]
    if _moved(config):
        old = stored(config)
        return [
            *(f"remove {host.name}" for host in existing(old)),
            f"remove bridge {old.bridge}",
            "make the lab anew",
        ]
    steps = [f"build image {base}" for base in image.image_paths(config) if not base.is_dir()]
    steps += limits.missing(len(config.wanted()))
    steps += network.missing(config)
    wanted = config.wanted()
    steps += [f"remove {host.name}" for host in existing(config) if host not in wanted]
    for host in wanted:
        if not hosts.is_complete(host, image.image_path(config, host.suite), config):
            steps.append(f"create {host.name}")
        elif hosts.process(host) is None:
            steps.append(f"boot {host.name}")
    if not steps:
        current = Path(config.inventory)
        if not current.exists() or current.read_text(encoding="utf-8") != inventory.render(config, wanted):
            steps.append(f"write {config.inventory}")
    return steps


def present(config: Config) -> dict[str, Any]:
    """Create or change the lab, and wait until every host has booted. Returns the steps that the function has taken,
    and the hosts.

    Raises LabError if the image is missing, a host does not boot, or a new host has failed units.
    """
    bases = {suite: image.image_path(config, suite) for suite in config.wanted_suites()}
    for base in bases.values():
        if not base.is_dir():
            raise LabError(f"{base}: no base image; build it first (lab.py image)")
    with locked(config.home / ".lock", LOCK_TIMEOUT):
        steps = _leave_old_network(config) if _moved(config) else []
        steps += limits.ensure(len(config.wanted()))
        steps += network.ensure(config)
        _make_key(config)
        write_file(config.home / "config.json", config.to_json(), 0o600)
        wanted = config.wanted()
        surplus = [host for host in existing(config) if host not in wanted]
        incomplete = [host for host in wanted if not hosts.is_complete(host, bases[host.suite], config)]
        stale = [host for host in incomplete if host.folder.exists()]
        _each(lambda host: hosts.remove(config, host), [*surplus, *stale])
        steps += [f"removed {host.name}" for host in surplus]
        for host in incomplete:
            hosts.create(host, bases[host.suite], config)
        created = incomplete
        steps += [f"created {host.name}" for host in created]
        booted = [host for host in wanted if hosts.process(host) is None]
        steps += [f"booted {host.name}" for host in booted if host not in created]
        states = _bring_up(config, wanted, booted, steps)
        if inventory.write(config, wanted):
            steps.append(f"wrote {config.inventory}")
        for host, state in zip(wanted, states):
            if state != "running" and host in created:
                raise LabError(f"{host.name}: booted {state}; failed units: {hosts.failed_units(config, host)}")
    return {
        "changed": bool(steps),
        "steps": steps,
        "hosts": _report(wanted, states),
        "inventory": config.inventory,
    }


def _moved(config: Config) -> bool:
    """Return whether the lab's hosts must be created again, because the bridge or the networks in the settings have
    changed.
    """
    old = stored(config)
    return (old.bridge, old.network, old.network6) != (config.bridge, config.network, config.network6)


def _leave_old_network(config: Config) -> list[str]:
    old = stored(config)
    found = existing(old)
    _each(lambda host: hosts.remove(old, host), found)
    network.remove(old)
    return [*(f"removed {host.name}" for host in found), f"removed {old.bridge}"]


def _bring_up(config: Config, wanted: Sequence[Host], off: Sequence[Host], steps: list[str]) -> list[str]:
    """Start the hosts in `off`, and wait until all hosts in `wanted` are ready.

    Returns, for each host, the state that systemd reports. The function restarts a host once if the host was on but
    does not answer. Raises LabError if the host does not answer after the restart either, or if the image of a host in
    `off` is missing.
    """
    for host in off:
        hosts.start(config, host)

    def ready(host: Host) -> str:
        try:
            if network.attach(config, host) and host not in off:
                steps.append(f"attached {host.name}")
            return hosts.wait_ready(config, host, config.boot_timeout)
        except LabError:
            if host in off:
                raise
            return ""

    states = _each(ready, wanted)
    silent = [host for host, state in zip(wanted, states) if not state]
    for host in silent:
        hosts.shut_down(config, host)
        steps.append(f"rebooted {host.name}, which did not answer")
    return _bring_up(config, wanted, silent, steps) if silent else states


def _each(action: Callable[[Host], Any], chosen: Sequence[Host]) -> list[Any]:
    """Run `action` for all hosts in parallel and return the results.

    If some hosts fail, waits for the remaining hosts, and then raises LabError with the reasons of all failures.
    """
    if not chosen:
        return []
    with ThreadPoolExecutor(min(len(chosen), PARALLEL)) as pool:
        futures = [pool.submit(action, host) for host in chosen]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, LabError):
            raise error
    if errors:
        raise LabError("\n".join(map(str, errors)))
    return [future.result() for future in futures]


def _make_key(config: Config) -> None:
    public = config.key_file.with_suffix(".pub")
    if config.key_file.exists() and public.exists():
        return
    config.key_file.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    # If a crash has left only one file of the key pair, create both files of the key pair again.
    config.key_file.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "xdp-gossip-lab", "-f", str(config.key_file)])


def _report(chosen: Sequence[Host], states: Sequence[str]) -> list[dict[str, str]]:
    return [
        {
            "name": host.name,
            "address": host.address,
            "address6": host.address6,
            "suite": host.suite,
            "state": state,
        }
        for host, state in zip(chosen, states)
    ]


def absent(config: Config, purge: bool) -> dict[str, Any]:
    """Remove the lab's hosts, network and directory. With `purge`, also remove the cached images.

    Returns the steps that the function has taken.
    """
    steps: list[str] = []
    config = stored(config)
    if config.home.is_dir():
        with locked(config.home / ".lock", LOCK_TIMEOUT):
            found = existing(config)
            _each(lambda host: hosts.remove(config, host), found)
            steps += [f"removed {host.name}" for host in found]
            if network.remove(config):
                steps.append(f"removed {config.bridge}")
            if inventory.delete(config):
                steps.append(f"removed {config.inventory}")
            _remove_home(config)
            steps.append(f"removed {config.dir}")
    elif network.remove(config):
        steps.append(f"removed {config.bridge}")
    if inventory.delete(config):
        steps.append(f"removed {config.inventory}")
    if purge and image.purge(config):
        steps.append(f"removed {config.cache_dir}")
    return {"changed": bool(steps), "steps": steps, "hosts": []}


def _remove_home(config: Config) -> None:
    """Delete the lab's files in its directory, and the directory itself unless it contains other files."""
    for name in LAB_FOLDERS:
        remove_tree(config.home / name)
    for name in (*LAB_FILES, ".lock"):
        (config.home / name).unlink(missing_ok=True)
    if not any(config.home.iterdir()):
        config.home.rmdir()


def cut_power(config: Config, name: str) -> dict[str, Any]:
    """Kill one host abruptly, like a power cut. The host's disk stays. Returns the steps taken."""
    config = _made(config)
    with locked(config.home / ".lock", LOCK_TIMEOUT):
        changed = hosts.cut_power(config, _known(config, name))
    return {"changed": changed, "steps": [f"cut power of {name}"] if changed else []}


def switch_on(config: Config, name: str) -> dict[str, Any]:
    """Boot one host from its own disk, and wait at most `config.boot_timeout` seconds until it answers."""
    config = replace(_made(config), boot_timeout=config.boot_timeout)
    with locked(config.home / ".lock", LOCK_TIMEOUT):
        host = _known(config, name)
        off = [] if hosts.process(host) else [host]
        network.ensure(config)
        steps: list[str] = [f"booted {name}" for _host in off]
        states = _bring_up(config, [host], off, steps)
    return {"changed": bool(steps), "steps": steps, "hosts": _report([host], states)}


def _made(config: Config) -> Config:
    if not config.home.is_dir():
        raise LabError(f"{config.dir}: no lab here; run the role with lab_state present first")
    return stored(config)


def _known(config: Config, name: str) -> Host:
    found = existing(config)
    for host in found:
        if host.name == name:
            return host
    names = ", ".join(host.name for host in found)
    raise LabError(f"lab_target: {name!r}: expected one of the hosts in {config.dir}: {names or '(none)'}")


def status(config: Config) -> dict[str, Any]:
    """Return whether the bridge exists, and for each host on disk its power state, process and number of mounts."""
    report = []
    for host in existing(config):
        nspawn = hosts.process(host)
        report.append(
            {
                "name": host.name,
                "address": host.address,
                "suite": host.suite,
                "power": "on" if nspawn else "off",
                "pid": nspawn.pid if nspawn else None,
                "mounts": len(mounts_under(host.folder)),
            }
        )
    return {"changed": False, "bridge": network.interface(config.bridge) is not None, "hosts": report}
