# SPDX-License-Identifier: MIT
"""The interface through which a runtime uses a kernel data plane, and a null object for nodes without a data plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..core.events import Standing
from ..core.types import Now


class PlaneSteering(Protocol):
    """Keeps a kernel data plane in sync with an engine. ``dataplane.steering.Steering`` implements this interface."""

    @property
    def reason(self) -> str:
        """The reason why no better mode is in use; "" if the requested or the best mode is in use."""

    def status(self) -> dict[str, Any]:
        """The object ``dataplane`` of GET /v1/status (docs/api.md); empty without a data plane."""

    def open(self, now: Now) -> None:
        """Look for a data plane before the engine starts.

        Raises ``NoPlane`` if the settings request a kernel mode by name and no data plane in that mode is loaded.
        """

    def begin(self, now: Now, wake: Callable[[], None]) -> None:
        """Start steering. The runtime calls this method after it has started the engine.

        Steering calls ``wake`` after a change of interfaces or addresses; the caller must then call :meth:`notice`.
        """

    def close(self) -> None:
        """Unsubscribe from changes of the host's interfaces and addresses. Idempotent."""

    def look(self, now: Now) -> None:
        """Look for a data plane now."""

    def notice(self, now: Now) -> None:
        """React to a change of the host's interfaces or addresses."""

    def next_timer(self) -> float:
        """The monotonic time at which :meth:`handle_timer` must be called next; infinity for never."""

    def inform(self, now: Now) -> None:
        """Pass to the engine the kernel's records that its timers need. The runtime calls it before these timers."""

    def handle_timer(self, now: Now) -> None:
        """Do the work that is due at ``now``."""

    def attend(self, now: Now) -> None:
        """Update the kernel after the engine has processed an input, because the engine's state may have changed."""

    def accept_keys(self, keys: Sequence[tuple[int, bytes]], now: Now) -> None:
        """Make the kernel accept packets signed with ``keys`` (pairs of key id and MAC key), too."""

    def use_keys(self, keys: Sequence[tuple[int, bytes]], active: int, now: Now) -> None:
        """Make the kernel sign with the key whose id is ``active``, and accept only ``keys``."""

    def hold(self, standing: Standing, now: Now) -> None:
        """Write a peer's state to the kernel's maps."""

    def members_changed(self, now: Now) -> None:
        """Schedule an update of the relay targets, because a member was added or removed."""


class WithoutPlane:
    """The steering of a node whose packets all go through sockets: every method does nothing.

    ``reason`` is the value of :attr:`PlaneSteering.reason`.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def status(self) -> dict[str, Any]:
        """An empty object."""
        return {}

    def next_timer(self) -> float:
        """Return infinity, because no timer is needed."""
        return math.inf

    def open(self, now: Now) -> None:
        """Do nothing."""

    def begin(self, now: Now, wake: Callable[[], None]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def look(self, now: Now) -> None:
        """Do nothing."""

    def notice(self, now: Now) -> None:
        """Do nothing."""

    def inform(self, now: Now) -> None:
        """Do nothing, because the engine has received every packet."""

    def handle_timer(self, now: Now) -> None:
        """Do nothing."""

    def attend(self, now: Now) -> None:
        """Do nothing, because there is no kernel state."""

    def accept_keys(self, keys: Sequence[tuple[int, bytes]], now: Now) -> None:
        """Do nothing, because the engine checks every packet."""

    def use_keys(self, keys: Sequence[tuple[int, bytes]], active: int, now: Now) -> None:
        """Do nothing, because the engine checks every packet."""

    def hold(self, standing: Standing, now: Now) -> None:
        """Do nothing, because there is no kernel state."""

    def members_changed(self, now: Now) -> None:
        """Do nothing, because there is no kernel state."""
