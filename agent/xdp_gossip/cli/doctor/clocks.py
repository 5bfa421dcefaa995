# SPDX-License-Identifier: MIT
"""Compares the clock of this host with the cluster's clock, and checks whether the host's clock is synchronised."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from .finding import Finding, Subject
from .look import Look

_SAYS = Subject("clock", offset="error", stepped="note", unsynchronised="warning", stale="warning", ahead="warning")
_NTP = "synchronise it (timedatectl set-ntp true)"
#: Default of the setting max_clock_drift in seconds, used if the configuration cannot be read.
_DRIFT = 60.0
#: The status bit STA_UNSYNC and the return value TIME_ERROR, both of adjtimex(2).
_UNSYNC, _TIME_ERROR = 0x40, 5


def examine(look: Look) -> Iterator[Finding]:
    """Report first whether the kernel says that the clock is synchronised, then the offset from the cluster's clock."""
    if unsynchronised():
        text = "the kernel says that nothing synchronises this host's clock"
        yield _SAYS("unsynchronised", text, f"{_NTP}; chronyc tracking")
    if look.status is None:
        return
    config, counters = look.sound, look.counters
    offset, most = look.status["clock_offset"], config.max_clock_drift if config is not None else _DRIFT
    told = f"the cluster's clock is {abs(offset):.3f} s {'ahead of' if offset > 0 else 'behind'} this host's"
    if abs(offset) > most / 2:
        yield _SAYS("offset", f"{told}; max_clock_drift is {most:g}", _NTP)
    else:
        yield _SAYS.ok(told)
    if counters.get("clock_steps"):
        text = f"it was set {counters['clock_steps']} times by more than half a second since the agent started"
        yield _SAYS(
            "stepped", text, "nothing, if an operator set it; otherwise let only one program set it (chronyc sources)"
        )
    if counters.get("rx_stale_time"):
        text = f"{counters['rx_stale_time']} packets from too far in the past or future"
        yield _SAYS(
            "stale", text, "synchronise the clocks of all members; if they are, someone replays recorded packets"
        )
    if counters.get("documents_ahead"):
        text = f"{counters['documents_ahead']} documents have a time in the future: their author's clock was ahead"
        yield _SAYS("ahead", text, "synchronise the clocks; xdp-gossip history KEY says whose")


class _Timex(ctypes.Structure):
    """The first fields of ``struct timex`` (linux/timex.h), padded to the size of the whole structure."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def unsynchronised() -> bool:
    """Return whether the kernel reports that its clock is not synchronised (adjtimex(2), which needs no privilege)."""
    timex = _Timex()
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    return answer == _TIME_ERROR and bool(timex.status & _UNSYNC)
