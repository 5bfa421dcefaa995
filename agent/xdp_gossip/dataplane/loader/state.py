# SPDX-License-Identifier: MIT
"""``state.json``: what is attached, for people, for the agent, and for the loader that runs after one was killed.

Whatever would outlive a killed loader is written down before it is done. Pins need no record: their paths show what
they are.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from .errors import LoaderError

NAME = "state.json"


@dataclass
class Refusal:
    """Why a better mode is not in use, and what to do about it. ``detail`` is the end of the verifier's log."""

    mode: str
    reason: str
    remedy: str
    detail: str = ""


@dataclass
class Clsact:
    """Filters on a clsact queueing discipline (before TCX): ``filters`` is hook -> ids of programs that are ours."""

    ifindex: int
    made: bool  # the clsact is ours to delete
    filters: dict[str, list[int]] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)  # hook -> priority of our filter


@dataclass
class Change:
    """A setting of an interface that the loader changed. ``down`` restores it if it is still ``after``."""

    ifindex: int
    setting: str
    before: int
    after: int


@dataclass
class State:
    """The state of a loaded data plane.

    ``complete`` is false while a loader works on it, or if a loader died meanwhile. ``mode`` is "" if no mode is
    possible.
    """

    layout: int
    version: str
    protocol: str
    node: str  # whose it is, as ADDRESS:PORT
    interface: str
    ifindex: int
    amount: int
    wide: int
    nodes: int
    user: str
    digest: str  # of the sources and the constants that they are compiled with
    mode: str = ""
    since: float = 0.0  # seconds since the epoch
    proved: float = 0.0  # when a loader saw last that it carries, seconds since the epoch
    complete: bool = False
    mounted: bool = False  # the bpffs is ours to unmount
    reasons: list[Refusal] = field(default_factory=list)
    programs: dict[str, int] = field(default_factory=dict)  # name -> id
    links: dict[str, int] = field(default_factory=dict)  # name -> id
    maps: dict[str, int] = field(default_factory=dict)  # name -> id
    clsact: Clsact | None = None
    notes: list[str] = field(default_factory=list)  # what the self-test could not prove, and traps that are no bar
    asked: str = ""  # dataplane.interface, "" for the one that has node.addr
    waiting: str = ""  # what is not there yet: an interface, an address
    owners: list[int] = field(default_factory=list)  # indexes of the interfaces that had the node's address
    rejected: dict[str, Refusal] = field(default_factory=dict)  # program -> why the kernel does not accept it
    tools: dict[str, str] = field(default_factory=dict)  # library of the compiler -> its size and time of change
    compiler: str = ""
    changes: list[Change] = field(default_factory=list)  # made to the interface by dataplane.prepare_interface


def read(directory: Path) -> State | None:
    """The state that a loader wrote; None if there is none. Raises ``LoaderError`` for another version's file."""
    path = directory / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["reasons"] = [Refusal(**reason) for reason in data["reasons"]]
        data["clsact"] = Clsact(**data["clsact"]) if data["clsact"] else None
        data["rejected"] = {name: Refusal(**refusal) for name, refusal in data.get("rejected", {}).items()}
        data["changes"] = [Change(**change) for change in data.get("changes", ())]
        known = {each.name for each in fields(State)}
        return State(**{name: value for name, value in data.items() if name in known})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LoaderError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise LoaderError(
            f"{path}: expected the state of this version of the loader, got {type(error).__name__}: {error}",
            "xdp-gossip dataplane down, then up again",
        ) from None


def write(directory: Path, state: State) -> None:
    """Replace the file in one step; everybody may read it. Raises ``OSError`` that names it."""
    path, fresh = directory / NAME, directory / f"{NAME}.new"
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, 0o644)
            json.dump(asdict(state), stream, indent=2)
            stream.write("\n")
        os.replace(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def remove(directory: Path) -> None:
    """Remove the file."""
    for name in (NAME, f"{NAME}.new"):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
