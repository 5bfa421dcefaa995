# SPDX-License-Identifier: MIT
"""``up`` and ``down``: the order of the steps, and the cleanup if a step fails."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ... import __version__
from .. import headers, interfaces
from ..asking import Request
from . import hooks, maps, modes, pins, state, supply, traps
from .compile import missing, stamp
from .errors import LoaderError, Rejected
from .programs import TC_EGRESS, WATCH
from .settings import Absent, Settings
from .steps import step
from .stock import Stock, Unfit, read

#: The results that ``up`` reports.
STARTED, UPGRADED, REPAIRED, ALREADY = "up", "upgraded", "repaired", "already up"


def up(settings: Settings) -> tuple[str, state.State]:
    """Load the data plane.

    If a data plane is already loaded, verify that data plane again. If necessary, repair or upgrade the loaded data
    plane, or select a better mode.

    Programs are replaced without detaching them first, and the maps are kept if they have the expected properties.
    Returns the result, such as :data:`STARTED`, and the state. Raises ``HeaderError``, ``OSError``, and ``LoaderError``
    if no mode is possible. If no mode is possible, the state contains the reasons, and nothing is left in the kernel.
    """
    directory = Path(settings.directory)
    with pins.lock(directory):
        step("directory made")
        pins.offer_request(directory, settings.uid)
        old = _read_or_undo(directory)
        if old is not None:
            pins.uncover(directory, old.layout)
            if _fits(directory, old, settings):
                moved = old.ifindex != settings.interface.index or not old.mode
                if moved:
                    _take_off(directory, old)
                    maps.forget_next_hops(pins.pin_directory(directory))
                    old.ifindex = settings.interface.index
                return _renew(directory, old, settings, moved=moved)
            if old.mode and old.complete:
                # What is loaded stays in use if nothing can take its place.
                Stock().refuse_lacking()
        _undo(directory, old)
        return STARTED, _start(directory, settings, old)


def wait(settings: Settings, error: LoaderError) -> None:
    """Record that an interface or its address is missing.

    A loaded data plane stays loaded while its interface exists. If the interface disappears, programs and maps are kept
    for the next interface. Missing programs and maps are created at once, because compiling takes most of the time of
    ``up``.

    The directories and the state are kept, so that the agent knows what is missing and can send a request. Raises
    ``LoaderError``, ``OSError``.
    """
    directory = Path(settings.directory)
    with pins.lock(directory):
        pins.offer_request(directory, settings.uid)
        old = _read_or_undo(directory)
        if old is not None and old.mode and old.complete:
            pins.uncover(directory, old.layout)
            if all(hooks.running(directory, old).values()):
                if old.waiting != error.reason:
                    old.waiting = error.reason
                    state.write(directory, old)
                return
        if old is not None and old.complete and old.programs:
            _take_off(directory, old)
            old.reasons, old.notes = [state.Refusal("", error.reason, error.remedy)], []
            old.waiting, old.complete = error.reason, True
            state.write(directory, old)
            return
        _undo(directory, old)
        now = _new_state(settings, old)
        now.waiting = error.reason
        _tell_failure(directory, now, error)
        if isinstance(error, Absent):
            _prepare(directory, settings, now)


def renamed(directory: Path, name: str) -> str:
    """Return the present name of the interface that was called ``name`` when the data plane was attached.

    The result is ``name`` itself if the interface was not renamed, or if no data plane is attached. Raises ``OSError``.
    """
    if not name or interfaces.by_name(name) is not None:
        return name
    try:
        old = state.read(directory)
    except LoaderError:
        return name
    found = (
        interfaces.by_index(old.ifindex)
        if old is not None and old.mode and name in (old.asked, old.interface)
        else None
    )
    return found.name if found is not None else name


def down(directory: Path) -> bool:
    """Remove the data plane and its directory. Returns False if there was nothing to remove.

    Raises ``LoaderError``, ``OSError``.
    """
    if not directory.exists():
        return False
    with pins.lock(directory):
        old = _read_or_undo(directory)
        if old is not None:
            pins.uncover(directory, old.layout)
        was_up = old is not None and bool(old.mode)
        if old is not None and old.complete:
            old.complete = False
            # Continue even if the disk is full. If this loader is killed, the next loader inspects the kernel and does
            # not rely on the state file.
            with contextlib.suppress(OSError):
                state.write(directory, old)
        step("down intended")
        _undo(directory, old)
        step("state removed")
        Request(directory).withdraw()
        (directory / "lock").unlink(missing_ok=True)
        # The directory may contain files that the loader did not create.
        with contextlib.suppress(OSError):
            pins.mount_point(directory).rmdir()
        with contextlib.suppress(OSError):
            directory.rmdir()
    return was_up


def _read_or_undo(directory: Path) -> state.State | None:
    """Return the state; None if there is no state file. If the state cannot be read, remove the pins and the state."""
    try:
        return state.read(directory)
    except LoaderError:
        mounted_at = pins.mount_point(directory)
        pins.remove_pins(mounted_at)
        # The mount point is inside the loader's own directory, so it is unlikely that someone else mounted the bpffs.
        if pins.is_bpffs(mounted_at) and not pins.strangers(mounted_at):
            pins.unmount(mounted_at)
        state.remove(directory)
        return None


def _fits(directory: Path, old: state.State, settings: Settings) -> bool:
    """Whether the existing programs and maps can be kept, even if programs must be attached to other hooks."""
    if old.layout != headers.constants()["XG_LAYOUT"] or not old.programs or not old.complete:
        return False
    return not maps.misfits(pins.pin_directory(directory), settings.nodes)


def _is_current(old: state.State, settings: Settings) -> bool:
    """Whether the programs were built from the current sources with the current compiler.

    After a change of the compiler, programs are compiled again, because the kernel may accept the new compiler's code.
    So are programs from a program container loaded again if another container fits, or if the kernel rejected some of
    them and this host has a compiler now. If the container is missing now or was changed, its programs stay in use.
    """
    if (old.digest, old.version) != (supply.digest(settings), __version__):
        return False
    if old.container:
        try:
            found = read()
        except Unfit:
            return True
        if old.rejected and not missing():
            return False
        return found is None or found[1] == old.container
    return all(stamp(path) == known for path, known in old.tools.items())


def _take_off(directory: Path, old: state.State) -> None:
    """Detach all our programs from the interface. It is no error if the interface no longer exists.

    Programs and maps are kept; the state file marks the data plane as incomplete.
    """
    old.complete = False
    state.write(directory, old)
    step("move intended")
    pins.remove_pins(pins.mount_point(directory), links_only=True)
    hooks.detach_all(old)
    traps.set_back(old)
    old.mode, old.links, old.clsact, old.changes = "", {}, None, []
    step("taken off")


def _undo(directory: Path, old: state.State | None) -> None:
    """Remove everything that a loader created, except the directory and the lock.

    Objects that do not exist cause no error.
    """
    mounted_at = pins.mount_point(directory)
    pins.remove_pins(mounted_at, links_only=True)
    step("links removed")
    if old is not None:
        hooks.detach_all(old)
        traps.set_back(old)
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


def _new_state(settings: Settings, old: state.State | None) -> state.State:
    """Create a new state. The new state takes only the list of rejected programs from ``old``."""
    now = state.State(
        layout=headers.constants()["XG_LAYOUT"],
        version=__version__,
        protocol=settings.protocol,
        node=str(settings.node),
        interface=settings.interface.name,
        ifindex=settings.interface.index,
        amount=settings.amount,
        wide=settings.wide,
        nodes=settings.nodes,
        user=settings.user,
        digest=supply.digest(settings),
        since=time.time(),
        asked=settings.asked,
        owners=list(settings.owners),
    )
    if old is not None and old.rejected and (old.tools or old.container) and _is_current(old, settings):
        now.rejected, now.tools, now.compiler = old.rejected, old.tools, old.compiler
        now.container, now.unfit = old.container, old.unfit
    return now


def _start(directory: Path, settings: Settings, old: state.State | None) -> state.State:
    now = _new_state(settings, old)
    try:
        _put_up(directory, settings, now)
    except (LoaderError, OSError) as error:
        _undo(directory, now)
        _tell_failure(directory, now, error)
        raise
    now.complete, now.proved = True, time.time()
    state.write(directory, now)
    return now


def _put_up(directory: Path, settings: Settings, now: state.State) -> None:
    traps.refuse_other_than_ethernet(settings.interface)
    with _made(directory, settings, now) as programs:
        _ascend(directory, settings, now, programs)


def _prepare(directory: Path, settings: Settings, now: state.State) -> None:
    """Compile the programs and create the maps while the interface is still missing.

    The state file records each failure, and the next ``up`` tries again.
    """
    waiting = list(now.reasons)
    try:
        with _made(directory, settings, now) as programs:
            for mode in settings.modes:
                programs.loads(mode)
            for name in (WATCH, *supply.SELFTEST_GROUP):
                with contextlib.suppress(Rejected):  # the state already contains the rejection
                    programs.program(name)
    except (LoaderError, OSError) as error:
        _undo(directory, now)
        now.notes = [f"no programs were made for the interface that is waited for: {error}"]
        _tell_failure(directory, now, error)
        return
    now.reasons, now.complete = waiting, True
    state.write(directory, now)


@contextlib.contextmanager
def _made(directory: Path, settings: Settings, now: state.State) -> Iterator[supply.Supply]:
    """Create new programs and maps, and pin them at the end of the block. Raises ``LoaderError``, ``OSError``."""
    supply.refuse_known(now.rejected, settings.modes)
    now.mounted = not pins.is_bpffs(pins.mount_point(directory))
    now.complete = False
    state.write(directory, now)
    step("state written")
    if now.mounted:
        pins.mount(pins.mount_point(directory))
    step("mounted")
    pinned = pins.pin_directory(directory)
    pinned.mkdir(mode=0o755)
    os.chmod(pinned, 0o755)
    step("pin directory made")
    with _programs(settings, pinned, now, renew=True) as programs:
        programs.program(TC_EGRESS)
        _hand_over(pinned, settings, now)
        yield programs
        programs.pin()
        step("programs pinned")


def _ascend(directory: Path, settings: Settings, now: state.State, programs: supply.Supply) -> bool:
    """Attach the best mode. Returns whether a program was attached to a hook that had no program of ours before.

    Raises ``LoaderError``, ``OSError``.
    """
    at = hooks.Hooks(directory, now, settings.interface)
    ascent = modes.Ascent(settings, programs, at, now, pins.pin_directory(directory))
    ascent.way_out()
    ascent.best()
    step("hooks proved")
    return ascent.attached


def _hand_over(pinned: Path, settings: Settings, now: state.State) -> None:
    wrong = maps.misfits(pinned, settings.nodes)
    if wrong:
        raise LoaderError(f"{headers.directory()}: its maps are not those of dataplane/layout.py: {'; '.join(wrong)}")
    now.maps = maps.hand_over(pinned, settings.uid)
    now.user = settings.user
    step("maps handed over")


@contextlib.contextmanager
def _programs(
    settings: Settings, pinned: Path, now: state.State, *, renew: bool, moved: bool = False
) -> Iterator[supply.Supply]:
    found = supply.Supply(settings, pinned, now, renew=renew, moved=moved)
    try:
        yield found
    finally:
        found.close()


def _renew(directory: Path, now: state.State, settings: Settings, *, moved: bool) -> tuple[str, state.State]:
    """Verify, repair, upgrade or improve the loaded data plane.

    The state file describes the old data plane until the last step.

    ``moved``: whether the programs and maps were made for another interface, so that none of our programs is attached
    now.
    """
    pinned = pins.pin_directory(directory)
    before = copy.deepcopy(now)
    if moved:
        now.waiting, now.reasons = "", []
    current = _is_current(now, settings)
    if not current:
        now.rejected = {}
    with _programs(settings, pinned, now, renew=not current, moved=moved) as programs:
        if not current:
            _check_before_exchange(settings, programs)
        try:
            traps.refuse_other_than_ethernet(settings.interface)
            if now.user != settings.user:
                _hand_over(pinned, settings, now)
            attached = _ascend(directory, settings, now, programs)
        except (LoaderError, OSError) as error:
            _undo(directory, now)
            # The version is not set earlier, because a state written before this line may still describe the former
            # programs.
            now.version, now.digest = __version__, supply.digest(settings)
            _tell_failure(directory, now, error)
            raise
        programs.pin()
        step("programs pinned")
    now.interface, now.asked, now.waiting = settings.interface.name, settings.asked, ""
    now.owners = list(settings.owners)
    now.version, now.digest, now.protocol = __version__, supply.digest(settings), settings.protocol
    now.node, now.amount, now.wide, now.nodes = str(settings.node), settings.amount, settings.wide, settings.nodes
    if now.clsact is not None:
        now.clsact.filters = {hook: ours[-1:] for hook, ours in now.clsact.filters.items()}
    done = ALREADY
    if now.mode != before.mode:
        done = STARTED
    elif not current or now.user != before.user:
        done = UPGRADED
    elif attached:
        done = REPAIRED
    now.proved, now.complete = time.time(), True
    if done != ALREADY:
        now.since = now.proved
    # Write the state even without a change: an agent that stopped using the data plane uses it again after a new
    # successful check.
    state.write(directory, now)
    return done, now


def _check_before_exchange(settings: Settings, programs: supply.Supply) -> None:
    """Raise ``LoaderError`` if the kernel rejects the new programs in every mode, so that the new programs do not
    replace working programs.
    """
    if not any(programs.loads(mode) for mode in settings.modes):
        rejected = list(programs.rejected.values())
        reason = "the new programs are not loaded, the old ones go on: " + "; ".join(each.reason for each in rejected)
        raise LoaderError(reason, rejected[0].remedy, "\n".join(each.detail for each in rejected))


def _tell_failure(directory: Path, now: state.State, error: Exception) -> None:
    """Write the reasons of a failure to the state file, which the agent, ``status`` and ``doctor`` read."""
    if not now.reasons:
        remedy, detail = getattr(error, "remedy", ""), getattr(error, "detail", "")
        now.reasons.append(state.Refusal("", str(error), remedy, detail))
    now.mode, now.complete, now.mounted, now.clsact = "", True, False, None
    now.programs, now.links, now.maps, now.changes = {}, {}, {}, []
    state.write(directory, now)
