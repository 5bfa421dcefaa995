# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a snapshot of release, configuration and units before a deployment, and restore the host from the snapshot if
the deployment fails.

Usage: ``snapshot.py take|restore PLACES``. PLACES is a JSON object of paths, with these keys:

- ``directory``: directory of the snapshot

- ``root``: directory of the releases, in which the link ``current`` points to the current release

- ``config``: configuration directory

- ``agent``, ``dataplane``, ``files``: unit files of the agent, the loader and the files helper

- ``dataplane_path``, ``dataplane_again``: further unit files of the data plane

- ``socket``: socket of the agent's API

Both commands print a JSON object with these keys:

- ``present``: false if the host has no release yet

- ``release``: directory name of the release

- ``version``: version of the release

- ``incarnation``: incarnation of the running agent, or -1 if the agent does not answer

- ``agent``, ``dataplane``, ``files``: ``present``, ``active`` and ``enabled`` of each unit

Errors go to stderr, with exit status 1.

The snapshot contains the fleet's secret, so only root may read its directory. If an interrupted run has left a
snapshot, ``take`` reuses that snapshot, because the current state of the host has never passed a health check.
``restore`` only replaces files. After ``restore``, the role starts and stops the units.

The script runs on the target under the Python interpreter that Ansible has found there. The script therefore uses only
the standard library, and no syntax that is newer than Python 3.9.
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
#: ``UNITS``: keys of PLACES for the unit files of services. ``KEPT``: keys of PLACES for everything that the snapshot
#: copies.
UNITS = ("agent", "dataplane", "files")
KEPT = ("config", "dataplane_path", "dataplane_again") + UNITS
#: Maximum seconds for one command, and maximum seconds to wait for one answer from the agent.
COPY, ANSWER = 60, 20


def run(*words: str) -> str:
    """Run a command and return its output. Raises ``OSError`` or ``subprocess.SubprocessError``."""
    done = subprocess.run(words, stdout=subprocess.PIPE, timeout=COPY, check=True)
    return done.stdout.decode("utf-8", "replace")


def copy(source: str, target: str) -> None:
    """Copy a file or a directory with owner, mode, times and security context."""
    run("cp", "--archive", "--no-target-directory", source, target)


def unit(path: str) -> dict[str, bool]:
    """Return whether the unit file exists, and whether the unit is active and enabled in systemd."""
    name = os.path.basename(path)
    shown = run("systemctl", "show", name, "--property=ActiveState,UnitFileState")
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return {
        "present": os.path.exists(path),
        # A unit that is starting or has failed counts as active, because it should run after the deployment.
        "active": values.get("ActiveState") not in ("inactive", "deactivating"),
        "enabled": values.get("UnitFileState") == "enabled",
    }


def incarnation(path: str) -> int:
    """Return the incarnation of the running agent, or -1 if the agent does not answer."""
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
    """Return the JSON object that describes the current state of the host."""
    link = os.path.join(places["root"], "current")
    target = os.readlink(link) if os.path.islink(link) else ""
    try:
        with open(os.path.join(places["root"], target, "VERSION"), encoding="ascii") as stream:
            version = stream.read().strip()
    except OSError:
        target = version = ""  # the link is missing or dangling, so there is no release to restore
    state = {
        "present": bool(target),
        "release": os.path.basename(target),
        "version": version,
        "incarnation": incarnation(places["socket"]),
    }
    state.update((name, unit(places[name])) for name in UNITS)
    return state


def read(places: dict[str, str]) -> dict | None:
    """Return the state that ``take`` has stored, or ``None`` if there is no complete snapshot."""
    try:
        with open(os.path.join(places["directory"], STATE), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def take(places: dict[str, str]) -> dict:
    """Take a snapshot unless a complete snapshot exists, and return the state that the snapshot stores.

    The function copies to a temporary directory and then renames this directory, so a directory with the final name is
    always complete.
    """
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
    """Restore the host from the snapshot, keep the snapshot, and return the state that the snapshot stores.

    Raises ``OSError`` if there is no snapshot, or if the release in the snapshot is no longer installed.
    """
    state = read(places)
    if state is None:
        raise FileNotFoundError("%s: expected the copy that `take` made, found none" % places["directory"])
    put_link(os.path.join(places["root"], "releases", state["release"]), os.path.join(places["root"], "current"))
    for name in KEPT:
        put_back(os.path.join(places["directory"], name), places[name])
    return state


def put_link(target: str, link: str) -> None:
    """Make ``link`` a symbolic link to ``target``, in one step. Raises ``OSError`` if ``target`` does not exist."""
    os.stat(target)
    fresh = link + ".restored"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    os.symlink(target, fresh)
    os.replace(fresh, link)


def put_back(kept: str, path: str) -> None:
    """Replace ``path`` by the copy ``kept``, or remove ``path`` if there is no copy.

    The function replaces a file in one step.
    """
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
    """Remove a file or a directory if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def main() -> int:
    """Run the command in the first argument of the command line, with the JSON object in the second argument.

    Returns the exit status.
    """
    work = {"take": take, "restore": restore}[sys.argv[1]]
    try:
        json.dump(work(json.loads(sys.argv[2])), sys.stdout)
    except (OSError, subprocess.SubprocessError) as error:
        print("snapshot.py %s: %s" % (sys.argv[1], error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
