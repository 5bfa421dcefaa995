# SPDX-License-Identifier: MIT
"""The commands ``dataplane up``, ``down``, ``status`` and ``build``: load, remove, show and compile the kernel data
plane.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import tables
from .agent import wrong_configuration
from .common import DEFAULT_CONFIG, FAILED, OK, CommandError, notice, output
from .parser import add_command, add_config, path

if TYPE_CHECKING:
    from ..config.agent import AgentConfig
    from ..dataplane.loader.state import State

#: Exit code if no data plane is up, the same as that of ``systemctl status`` for a stopped unit. ``status`` uses this
#: exit code, and so does ``up`` if the configuration allows UDP.
NOT_UP = 3
#: Maximum number of lines of compiler or verifier output that a command prints. ``status --json`` prints all lines that
#: the loader stored.
_LOG_LINES = 10


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``dataplane`` to the parser."""
    dataplane = add_command(
        commands,
        "dataplane",
        "the kernel data plane: up, down, status, build",
        "Set up, remove or show the kernel data plane of this host, or compile its programs for other hosts. The agent "
        "need not run.",
        ["xdp-gossip dataplane status", "xdp-gossip dataplane up"],
        common,
    )
    actions = dataplane.add_subparsers(metavar="ACTION", required=True)
    texts = {
        "up": (
            "load and attach it, or renew it (root)",
            "As root: load the programs and attach them to the interface that has the node's address, in the best mode "
            "that works there. The programs come from the program container in the release; without one that fits, "
            "BCC compiles them. A second up repeats the self-test and renews what has changed.",
            run_up,
        ),
        "down": ("detach it and remove every trace (root)", "As root: detach it and remove every trace.", run_down),
        "status": (
            "mode, programs, counters",
            "Show the mode, the programs, the counters, and why no better mode is available. Exit code 3: no plane "
            "is up.",
            run_status,
        ),
    }
    for name, (text, description, handler) in texts.items():
        action = add_command(actions, name, text, description, [f"xdp-gossip dataplane {name}"], common)
        add_config(action)
        where = "directory of its state and pins (default: as configured)"
        action.add_argument("--directory", metavar="DIR", type=path, help=where)
        if name == "up":
            text = "network interface (default: as configured)"
            action.add_argument("--interface", metavar="NAME", default="", help=text)
            text = "user who owns the maps (default: xdp-gossip)"
            action.add_argument("--user", metavar="NAME", default="", help=text)
        action.set_defaults(handler=handler)
    build = add_command(
        actions,
        "build",
        "compile the programs into a program container (root)",
        "As root: compile the programs with BCC and write them into a program container, from which hosts without a "
        "compiler load them. The same sources and the same compiler always give the same bytes.",
        ["xdp-gossip dataplane build programs.xgp"],
        common,
    )
    build.add_argument("file", metavar="OUT", type=path, help="file to write the program container to")
    build.set_defaults(handler=run_build)


def run_up(args: argparse.Namespace) -> int:
    """Load the data plane and return the exit code.

    0: the data plane is up, or the configuration selects no data plane. 1: no mode can be loaded. 3: no mode can be
    loaded but the configuration allows UDP, or the loader waits for a missing interface, address or route. If the BPF
    source makes LLVM abort, LLVM ends this process with exit code 1, whatever the configuration. A BPF source that
    makes LLVM abort is a fault of the release, not of the host.
    """
    from ..config.agent import ConfigError, load
    from ..dataplane.headers import HeaderError
    from ..dataplane.loader import runner, settings
    from ..dataplane.loader.errors import LoaderError

    try:
        config = load(args.config)
    except ConfigError as error:
        raise wrong_configuration(error) from None
    try:
        if config.protocol not in settings.MODES or config.wire != "native":
            why = f"protocol is {config.protocol}" if config.wire == "native" else f"wire is {config.wire}"
            removed = runner.down(Path(settings.directory(config, args.directory)))
            text = f"no data plane is wanted: {why}" + ("; the old one is down" if removed else "")
            output(args, {"done": "none", "why": why, "removed": removed}, lambda: print(text))
            return OK
        done, state = _up(config, args)
    except LoaderError as error:
        raise _explained(error, _failure(config, error)) from None
    except HeaderError as error:
        raise CommandError(str(error), _failure(config, error)) from None
    report = {"done": done, **dataclasses.asdict(state)}
    output(args, report, lambda: _print_up(done, state))
    return OK


def _print_up(done: str, state: State) -> None:
    print(f"{done}: {state.mode} on {state.interface}")
    if state.unfit:
        print(f"  program container not used: {state.unfit}")
    for refusal in state.reasons:
        print(f"  not {refusal.mode}: {refusal.reason}\n    -> {refusal.remedy}")
        for line in refusal.detail.splitlines()[-_LOG_LINES:]:
            print(f"    | {line}")
    for change in state.changes:
        print(f"  changed: {change.setting} from {change.before} to {change.after}; down sets it back")
    for note in state.notes:
        print(f"  note: {note}")


def _up(config: AgentConfig, args: argparse.Namespace) -> tuple[str, State]:
    """Load the data plane.

    If the interface or its address is missing, write the name of the missing interface or address to the state file,
    and raise the error.

    Raises ``LoaderError`` or ``HeaderError``.
    """
    from ..dataplane.loader import runner, settings
    from ..dataplane.loader.errors import LoaderError

    directory = Path(settings.directory(config, args.directory))
    asked = settings.asked(config, args.interface)
    try:
        name = runner.renamed(directory, asked)
        wanted = settings.wanted(config, interface=name, named_directory=str(directory), user=args.user)
    except LoaderError as error:
        runner.wait(settings.unplaced(config, interface=asked, named_directory=str(directory), user=args.user), error)
        raise
    return runner.up(dataclasses.replace(wanted, asked=asked))


def _failure(config: AgentConfig, error: Exception) -> int:
    """Return the exit code of a failed ``up``.

    The code is 3 with protocol auto or while the loader waits for an interface or address; otherwise 1.
    """
    from ..dataplane.loader.settings import Absent

    return NOT_UP if config.protocol == "auto" or isinstance(error, Absent) else FAILED


def run_down(args: argparse.Namespace) -> int:
    """Remove the data plane. Returns exit code 0, whether or not a data plane was up before."""
    from ..dataplane.loader import runner
    from ..dataplane.loader.errors import LoaderError

    try:
        was_up = runner.down(_directory(args))
    except LoaderError as error:
        raise _explained(error, FAILED) from None
    output(args, {"was_up": was_up}, lambda: print("down" if was_up else "was not up"))
    return OK


def run_status(args: argparse.Namespace) -> int:
    """Print the state of the data plane. Returns exit code 0 if a data plane is up, otherwise 3."""
    from ..dataplane import unprivileged
    from ..dataplane.loader import status
    from ..dataplane.loader.errors import LoaderError

    try:
        report = {**status.report(_directory(args)), "agent_needs": unprivileged.needed()}
    except LoaderError as error:
        raise _explained(error, FAILED) from None
    output(args, report, lambda: _show(report, args))
    return OK if report["up"] else NOT_UP


def run_build(args: argparse.Namespace) -> int:
    """Compile the programs into a program container and write it. Returns exit code 0.

    Replaces an existing file atomically. Raises ``CommandError`` if the programs cannot be compiled, or if the file
    cannot be written.
    """
    from ..dataplane.headers import HeaderError
    from ..dataplane.loader import compile, container
    from ..dataplane.loader.errors import LoaderError

    out = Path(args.file)
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        try:
            fresh.touch()  # before the seconds of a compilation
            built = compile.container()
            content = container.pack(built)
            fresh.write_bytes(content)
            fresh.chmod(0o644)
            os.replace(fresh, out)
        finally:
            fresh.unlink(missing_ok=True)
    except LoaderError as error:
        raise _explained(error, FAILED) from None
    except HeaderError as error:
        raise CommandError(str(error), FAILED) from None
    except OSError as error:
        where = out if error.filename in (None, str(fresh)) else error.filename
        raise CommandError(f"{where}: {error.strerror}", FAILED) from None
    programs = {program.name: len(program.code) // 8 for part in built.parts for program in part.programs}
    report = {
        "path": str(out),
        "sha256": container.checksum(content),
        "bytes": len(content),
        "sources": built.sources,
        "layout": built.layout,
        "compiler": built.compiler,
        "programs": programs,  # name -> number of instructions
    }
    text = f"{out}: {len(content)} bytes, {len(programs)} programs, by {built.compiler}"
    output(args, report, lambda: print(f"{text}\nsha256:{report['sha256']}"))
    return OK


def _moment(seconds: float) -> str:
    """Format a time stamp as local time; return "" if ``seconds`` is 0, which means never."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds)) if seconds else ""


def _show(described: dict[str, Any], args: argparse.Namespace) -> None:
    """Print ``described``, a report of ``dataplane.loader.status``, as text."""
    from ..dataplane import headers
    from ..dataplane.loader import refusals, status

    if not described["up"]:
        print(f"down: {described['reason']}")
    if "mode" in described:
        pairs = {
            "mode": described["mode"] or "none",
            "interface": described["interface"],
            "since": _moment(described["since"]),
            "proved": _moment(described["proved"]),
            "version": described["version"],
            "room": f"{described['nodes']} nodes",
            "copies": f"{described['amount']} of a heartbeat, {described['wide']} of news",
            "maps of": described["user"],
            "TC by": described["tc"],
            "origin": status.origin(described) if described["programs"] else "",
            "programs": ", ".join(f"{name} {number}" for name, number in described["programs"].items()),
        }
        tables.show_pairs({name: value for name, value in pairs.items() if value})
    for refusal in described["reasons"]:
        print(f"not {refusal['mode'] or 'up'}: {refusal['reason']}\n  -> {refusal['remedy']}")
    if described.get("container_unfit"):
        print(f"program container not used: {described['container_unfit']}")
    if described.get("waiting") and described["up"]:
        print(f"waiting: {described['waiting']}")
    for name in described.get("agent_needs", ()):
        print(f"this kernel requires {name} to use maps: the agent's unit needs it")
    for change in described.get("changes", ()):
        print(f"changed: {change['setting']} from {change['before']} to {change['after']}; down sets it back")
    for note in described.get("notes", ()):
        print(f"note: {note}")
    if described.get("counters"):
        print()
        texts = headers.counters()
        rows = [(name, number, texts[name]) for name, number in described["counters"].items() if number]
        if rows:
            tables.show(("counter", "packets", "what"), rows, args)
        else:
            print("no packet has been counted yet")
        if described["copies_missing"]:
            print(f"{described['copies_missing']} copies were asked for and vanished: xdp-gossip doctor says more")
    for source in described.get("refusals", ()):
        print(refusals.line(source))


def _explained(error: Any, status: int) -> CommandError:
    log = [f"  | {line}" for line in error.detail.splitlines()[-_LOG_LINES:]]
    return CommandError(error.reason, status, more=log + ([f"  -> {error.remedy}"] if error.remedy else []))


def _directory(args: argparse.Namespace) -> Path:
    """Return the directory that contains the state and the pins of the data plane.

    If the configuration cannot be read, return the default directory, so that ``down`` always works.
    """
    from ..dataplane.loader import settings

    return Path(settings.directory(None if args.directory else _readable_config(args), args.directory))


def _readable_config(args: argparse.Namespace) -> AgentConfig | None:
    from ..config.agent import ConfigError, load

    try:
        return load(args.config)
    except ConfigError as error:
        if args.config != DEFAULT_CONFIG:
            notice(args, f"{error.problems[0]}; going on with the default directory")
        return None
