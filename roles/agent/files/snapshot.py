# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a copy of release, configuration and units before a deployment, and put it back when that fails.

Usage: ``snapshot.py take|restore PLACES``. PLACES is a JSON object of paths: ``directory`` (the copy), ``root`` (of the
releases; ``current`` in it links to one), ``config`` (directory), ``agent``, ``dataplane`` and ``files`` (unit files),
``dataplane_path`` and ``dataplane_again`` (unit files that follow ``dataplane``),
``socket`` (of the agent). Both print the same JSON object: ``present`` (false when the host has no release yet),
``release`` (directory name), ``version``, ``incarnation`` (of the running agent, -1 when it does not answer),
``agent``, ``dataplane`` and ``files`` (each ``present``, ``active``, ``enabled``). Errors go to stderr, exit status 1.

The copy holds the fleet's secret: nobody but root may look into its directory. One that an interrupted run left is
kept, since what is on the host since then has never passed a gate. ``restore`` moves files only; units are the role's.

Runs on the target under whatever Python Ansible found, hence no newer syntax and only the standard library.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys

STATE = "state.json"
#: What of the places is a unit, and all that is copied.
UNITS = ("agent", "dataplane", "files")
KEPT = ("config", "dataplane_path", "dataplane_again") + UNITS
#: Seconds for a copy, and for an answer of systemd or the agent.
COPY, ANSWER = 60, 20


def run(*words: str) -> str:
    """Output of a command. Raises ``OSError`` or ``subprocess.SubprocessError``."""
    done = subprocess.run(words, stdout=subprocess.PIPE, timeout=COPY, check=True)
    return done.stdout.decode("utf-8", "replace")


def copy(source: str, target: str) -> None:
    """Copy a file or a directory with owner, mode, times and security context."""
    run("cp", "--archive", "--no-target-directory", source, target)


def unit(path: str) -> dict[str, bool]:
    """What systemd does with a unit."""
    name = os.path.basename(path)
    shown = run("systemctl", "show", name, "--property=ActiveState,UnitFileState")
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return {
        "present": os.path.exists(path),
        # One that is just starting is meant to run; one that has failed is, too: the deployment is to mend it.
        "active": values.get("ActiveState") not in ("inactive", "deactivating"),
        "enabled": values.get("UnitFileState") == "enabled",
    }


def incarnation(path: str) -> int:
    """The running agent's own, -1 when it does not answer."""
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(ANSWER)
        connection.sock.connect(path)
        connection.request("GET", "/v1/node")
        return int(json.loads(connection.getresponse().read().decode("utf-8"))["incarnation"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return -1
    finally:
        connection.close()


def describe(places: dict[str, str]) -> dict:
    """The host as it is."""
    link = os.path.join(places["root"], "current")
    target = os.readlink(link) if os.path.islink(link) else ""
    try:
        with open(os.path.join(places["root"], target, "VERSION"), encoding="ascii") as stream:
            version = stream.read().strip()
    except OSError:
        target = version = ""  # no link, or one to nowhere: nothing to go back to
    state = {
        "present": bool(target),
        "release": os.path.basename(target),
        "version": version,
        "incarnation": incarnation(places["socket"]),
    }
    state.update((name, unit(places[name])) for name in UNITS)
    return state


def read(places: dict[str, str]) -> dict | None:
    """What an earlier ``take`` wrote, None when there is no whole copy."""
    try:
        with open(os.path.join(places["directory"], STATE), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def take(places: dict[str, str]) -> dict:
    """Copy and describe; a directory under its final name is always a whole copy."""
    kept = read(places)
    if kept is not None:
        return kept
    state = describe(places)
    if not state["present"]:
        return state
    partial = places["directory"] + ".partial"
    for leftover in (partial, places["directory"]):
        shutil.rmtree(leftover, ignore_errors=True)
    os.mkdir(partial, 0o700)
    for name in KEPT:
        if os.path.exists(places[name]):
            copy(places[name], os.path.join(partial, name))
    with open(os.path.join(partial, STATE), "w", encoding="utf-8") as stream:
        json.dump(state, stream)
    os.rename(partial, places["directory"])
    return state


def restore(places: dict[str, str]) -> dict:
    """Put the copy back; it stays. Raises ``OSError`` when there is none, or its release is gone."""
    state = read(places)
    if state is None:
        raise FileNotFoundError("%s: expected the copy that `take` made, found none" % places["directory"])
    put_link(os.path.join(places["root"], "releases", state["release"]), os.path.join(places["root"], "current"))
    for name in KEPT:
        put_back(os.path.join(places["directory"], name), places[name])
    return state


def put_link(target: str, link: str) -> None:
    """Let ``link`` point to ``target``. Raises ``OSError`` when that is gone."""
    os.stat(target)
    fresh = link + ".restored"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    os.symlink(target, fresh)
    os.replace(fresh, link)


def put_back(kept: str, path: str) -> None:
    """Make ``path`` what was kept of it, a file in one step; remove it when there was nothing."""
    fresh, failed = path + ".restored", path + ".failed"
    for leftover in (fresh, failed):
        remove(leftover)
    if os.path.exists(kept):
        copy(kept, fresh)
    if os.path.isdir(path) or not os.path.exists(fresh):
        if os.path.lexists(path):
            os.rename(path, failed)
    if os.path.exists(fresh):
        os.replace(fresh, path)
    remove(failed)


def remove(path: str) -> None:
    """Remove a file or a directory, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def main() -> int:
    """Do what the first argument says to the places in the second."""
    work = {"take": take, "restore": restore}[sys.argv[1]]
    try:
        json.dump(work(json.loads(sys.argv[2])), sys.stdout)
    except (OSError, subprocess.SubprocessError) as error:
        print("snapshot.py %s: %s" % (sys.argv[1], error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
