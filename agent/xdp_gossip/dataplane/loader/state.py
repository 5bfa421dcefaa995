# SPDX-License-Identifier: MIT
"""``state.json``: a record of the attached programs. People, the agent and later loaders read this file.

Before the loader creates an object that could outlive the loader, the loader records the object, so that the next
loader can clean up after a killed loader. Pins need no record, because their paths identify them.
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
    """The reason why a better mode is not in use, with the remedy. ``detail``: last lines of the verifier's log."""

    mode: str
    reason: str
    remedy: str
    detail: str = ""


@dataclass
class Clsact:
    """Our filters on a clsact queueing discipline (kernels before TCX).

    ``filters``: hook -> ids of our programs at this hook.
    """

    ifindex: int
    made: bool  # whether the loader created the clsact, and so may delete it
    filters: dict[str, list[int]] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)  # hook -> priority of our filter


@dataclass
class Change:
    """An interface setting that the loader changed.

    ``down`` restores the former value ``before``, but only if the setting still has the loader's value ``after``.
    """

    ifindex: int
    setting: str
    before: int
    after: int


@dataclass
class State:
    """The state of a loaded data plane.

    ``complete`` is false while a loader works on the data plane, and remains false if that loader dies. ``mode`` is ""
    if no mode is possible.
    """

    layout: int
    version: str
    protocol: str
    node: str  # the node that owns the data plane, as ADDRESS:PORT
    interface: str
    ifindex: int
    amount: int
    wide: int
    nodes: int
    user: str
    digest: str  # digest of the BPF sources, the constants and the sizes
    mode: str = ""
    since: float = 0.0  # Time at which this mode was loaded, in seconds since the epoch.
    proved: float = 0.0  # Time of the last successful check by a loader, in seconds since the epoch.
    complete: bool = False
    mounted: bool = False  # the loader mounted the bpffs and may unmount it
    reasons: list[Refusal] = field(default_factory=list)
    programs: dict[str, int] = field(default_factory=dict)  # Program name -> id.
    links: dict[str, int] = field(default_factory=dict)  # Link name -> id.
    maps: dict[str, int] = field(default_factory=dict)  # Map name -> id.
    clsact: Clsact | None = None
    # Checks that the self-test could not make, and obstacles that do not prevent the mode.
    notes: list[str] = field(default_factory=list)
    asked: str = ""  # The setting dataplane.interface; "" for the interface with node.addr.
    waiting: str = ""  # The missing interface or address for which the loader waits; "" if nothing is missing.
    owners: list[int] = field(default_factory=list)  # Indexes of the interfaces that had the node's address.
    rejected: dict[str, Refusal] = field(default_factory=dict)  # Program -> reason why the kernel rejects it.
    tools: dict[str, str] = field(default_factory=dict)  # Compiler library -> its size and modification time.
    compiler: str = ""
    container: str = ""  # SHA-256 of the program container; "" if the programs were compiled on this host.
    unfit: str = ""  # Reason why an existing program container was not used.
    changes: list[Change] = field(default_factory=list)  # changes made to the interface for dataplane.prepare_interface


def read(directory: Path) -> State | None:
    """Return the last loader's state; None if there is no state file.

    Raises ``LoaderError`` if another version of the loader wrote the file in another format.
    """
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
    """Replace the state file atomically.

    All users may read the file. Raises an ``OSError`` that names the state file.
    """
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
    """Remove the state file, if it exists."""
    for name in (NAME, f"{NAME}.new"):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
