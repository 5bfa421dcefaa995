# SPDX-License-Identifier: MIT
"""``up`` and ``down``: what is done in which order, and what is undone when it cannot be finished."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ... import __version__
from .. import headers
from . import calls, hooks, maps, pins, selftest, state
from .compile import EGRESS, INGRESS, TC_EGRESS, TC_INGRESS, Programs, sources_digest
from .errors import LoaderError, Refused
from .settings import NATIVE, Settings
from .steps import step

#: What ``up`` found to do.
STARTED, UPGRADED, ALREADY = "up", "upgraded", "already up"

_KINDS = {INGRESS: ("XDP", None), EGRESS: ("XDP", calls.XDP_DEVMAP), TC_INGRESS: ("SCHED_CLS", None)}
_KINDS[TC_EGRESS] = ("SCHED_CLS", None)


def up(settings: Settings) -> tuple[str, state.State]:
    """Put the data plane up, exchange its programs, or leave it alone when it is as wanted.

    Returns what was done and the state. Raises ``LoaderError`` when no mode can be had (the state then tells why,
    and nothing is left in the kernel), ``HeaderError``, ``OSError``.
    """
    directory = Path(settings.directory)
    with pins.lock(directory):
        step("directory made")
        old = _read_or_undo(directory)
        if old is not None and old.mode and old.complete and _fits(directory, old, settings):
            if _as_wanted(directory, old, settings):
                return ALREADY, old
            # A mode that carried once may carry no longer: then begin anew and step down.
            with contextlib.suppress(Refused):
                return UPGRADED, _upgrade(directory, old, settings)
        _undo(directory, old)
        return STARTED, _start(directory, settings)


def down(directory: Path) -> bool:
    """Take everything away, the directory too. False when there was nothing. Raises ``LoaderError``, ``OSError``."""
    if not directory.exists():
        return False
    with pins.lock(directory):
        old = _read_or_undo(directory)
        was_up = old is not None and bool(old.mode)
        if old is not None and old.complete:
            old.complete = False
            state.write(directory, old)
        step("down intended")
        _undo(directory, old)
        step("state removed")
        (directory / "lock").unlink(missing_ok=True)
        # Something of somebody else's may lie in it.
        with contextlib.suppress(OSError):
            pins.mount_point(directory).rmdir()
        with contextlib.suppress(OSError):
            directory.rmdir()
    return was_up


def _read_or_undo(directory: Path) -> state.State | None:
    """The state, None when there is none, or one that cannot be read: what it told of is removed then."""
    try:
        return state.read(directory)
    except LoaderError:
        mounted_at = pins.mount_point(directory)
        pins.remove_pins(mounted_at)
        # It lies in a directory of our own: nobody else is likely to have mounted it.
        if pins.is_bpffs(mounted_at) and not pins.strangers(mounted_at):
            pins.unmount(mounted_at)
        state.remove(directory)
        return None


def _fits(directory: Path, old: state.State, settings: Settings) -> bool:
    """Whether the programs can be exchanged under running hooks, with the maps kept."""
    same = (old.layout, old.interface, old.ifindex) == (
        headers.constants()["XG_LAYOUT"],
        settings.interface.name,
        settings.interface.index,
    )
    # A mode that the old protocol held it to, where the new one has a better one first.
    if old.protocol != settings.protocol and old.mode != settings.modes[0]:
        return False
    if not same or old.mode not in settings.modes or not all(hooks.running(directory, old).values()):
        return False
    return not maps.misfits(pins.pin_directory(directory), settings.nodes)


def _as_wanted(directory: Path, old: state.State, settings: Settings) -> bool:
    """Whether nothing has to be done. An upgrade that died half-way shows in the programs."""
    for name, program in hooks.running(directory, old).items():
        if old.programs.get(hooks.HOOKS[name][0]) != program:
            return False
    same = (old.digest, old.user, old.version) == (sources_digest(settings), settings.user, __version__)
    return same and all((pins.pin_directory(directory) / _pin(name)).exists() for name in old.programs)


def _undo(directory: Path, old: state.State | None) -> None:
    """Remove all that a loader made, but for the directory and the lock; any part of it may be missing."""
    mounted_at = pins.mount_point(directory)
    pins.remove_pins(mounted_at, links_only=True)
    step("links removed")
    if old is not None:
        hooks.detach_all(old)
    step("filters removed")
    pins.remove_pins(mounted_at)
    step("pins removed")
    if old is not None and old.mounted:
        if pins.is_bpffs(mounted_at) and not pins.strangers(mounted_at):
            pins.unmount(mounted_at)
        step("unmounted")
        with contextlib.suppress(OSError):
            mounted_at.rmdir()
    state.remove(directory)


def _start(directory: Path, settings: Settings) -> state.State:
    mounted_at = pins.mount_point(directory)
    now = state.State(
        layout=headers.constants()["XG_LAYOUT"],
        version=__version__,
        protocol=settings.protocol,
        interface=settings.interface.name,
        ifindex=settings.interface.index,
        amount=settings.amount,
        wide=settings.wide,
        nodes=settings.nodes,
        user=settings.user,
        digest=sources_digest(settings),
        since=time.time(),
        mounted=not pins.is_bpffs(mounted_at),
    )
    state.write(directory, now)
    step("state written")
    try:
        _put_up(directory, settings, now)
    except (LoaderError, OSError) as error:
        _undo(directory, now)
        _tell_failure(directory, now, error)
        raise
    now.complete = True
    state.write(directory, now)
    return now


def _put_up(directory: Path, settings: Settings, now: state.State) -> None:
    if now.mounted:
        pins.mount(pins.mount_point(directory))
    step("mounted")
    pinned = pins.pin_directory(directory)
    pinned.mkdir(mode=0o755)
    os.chmod(pinned, 0o755)
    step("pin directory made")
    with _loaded(settings, pinned) as programs:
        now.maps = maps.hand_over(pinned, settings.uid)
        step("maps handed over")
        at = hooks.Hooks(directory, now, settings.interface)
        at.attach("link_tc_egress", programs)
        now.mode = _attach_best(at, settings, programs, now)
        now.programs = _pin_programs(pinned, programs)
        step("programs pinned")


def _attach_best(at: hooks.Hooks, settings: Settings, programs: dict[str, int], now: state.State) -> str:
    """Take the first mode that can be had and carries. Raises ``LoaderError`` when none does."""
    for mode in settings.modes:
        name = hooks.of_mode(mode)[0]
        try:
            at.attach(name, programs, mode)
            step("hooks attached")
            if mode == NATIVE:
                now.notes += selftest.redirect(settings.interface)
            step("tested")
            return mode
        except Refused as refusal:
            at.detach(name)
            now.reasons.append(state.Refusal(mode, refusal.reason, refusal.remedy))
    reasons = "\n".join(f"  {refusal.mode}: {refusal.reason}" for refusal in now.reasons)
    raise LoaderError(f"no mode of protocol {settings.protocol} can be had:\n{reasons}", now.reasons[0].remedy)


@contextlib.contextmanager
def _loaded(settings: Settings, pinned: Path) -> Iterator[dict[str, int]]:
    """The four programs, compiled, loaded and run once, by name; their maps are pinned in ``pinned`` or taken from it.

    Raises ``LoaderError``.
    """
    entries = {"XG_AMOUNT": str(settings.amount), "XG_WIDE": str(settings.wide)}
    source = Programs("dataplane.c", {"XG_NODES": str(settings.nodes), "XG_PIN": f'"{pinned}"', **entries})
    step("compiled")
    programs = {name: source.load(name, kind, attach_type) for name, (kind, attach_type) in _KINDS.items()}
    wrong = maps.misfits(pinned, settings.nodes)
    if wrong:
        raise LoaderError(f"{headers.directory()}: its maps are not those of dataplane/layout.py: {'; '.join(wrong)}")
    source.fill_devmap("relay", settings.amount, settings.interface.index, programs[EGRESS])
    source.fill_devmap("relay_wide", settings.wide, settings.interface.index, programs[EGRESS])
    step("loaded")
    selftest.run_programs(programs)
    # BCC closes them when ``source`` goes.
    yield programs


def _upgrade(directory: Path, old: state.State, settings: Settings) -> state.State:
    """Exchange the programs under running hooks; until the last step the state tells of the old ones."""
    pinned = pins.pin_directory(directory)
    with _loaded(settings, pinned) as programs:
        step("upgrade compiled")
        if old.mode == NATIVE:
            old.notes = selftest.redirect(settings.interface)
        step("upgrade tested")
        at = hooks.Hooks(directory, old, settings.interface)
        for name in hooks.of_mode(old.mode):
            at.exchange(name, programs)
            step(f"{name} exchanged")
        step("hooks exchanged")
        old.programs = _pin_programs(pinned, programs)
        step("upgrade pinned")
    old.maps = maps.hand_over(pinned, settings.uid)
    old.version, old.digest, old.protocol = __version__, sources_digest(settings), settings.protocol
    old.amount, old.wide, old.nodes, old.user = settings.amount, settings.wide, settings.nodes, settings.user
    old.since = time.time()
    if old.clsact is not None:
        old.clsact.filters = {hook: ours[-1:] for hook, ours in old.clsact.filters.items()}
    state.write(directory, old)
    return old


def _pin_programs(pinned: Path, programs: dict[str, int]) -> dict[str, int]:
    for name, program in programs.items():
        pins.replace(program, pinned / _pin(name))
    return {name: calls.program_info(program)[0] for name, program in programs.items()}


def _pin(program: str) -> str:
    return pins.PROGRAM_PREFIX + program


def _tell_failure(directory: Path, now: state.State, error: Exception) -> None:
    """Leave the reasons where agent, status and doctor find them."""
    if not now.reasons:
        now.reasons.append(state.Refusal("", str(error), getattr(error, "remedy", "")))
    now.complete, now.mounted, now.clsact = True, False, None
    now.programs, now.links, now.maps = {}, {}, {}
    state.write(directory, now)
