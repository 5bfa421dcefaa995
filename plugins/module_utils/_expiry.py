# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: parses the lifetimes of documents, and decides when a document must be written again.
Python 3.8 or later.
"""

from __future__ import annotations

import calendar
import re
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST = 10 * 365 * 86400

#: Seconds by which the remaining lifetime may exceed the wanted lifetime before the document is written again, because
#: clocks differ.
_TOLERANCE = 60


def seconds_of(text: str | None) -> int | None:
    """Convert the option ``expires`` to seconds: 0 for ``never``, ``None`` if the option is not given. Raises
    ``ConfigError``.
    """
    if text is None:
        return None
    if text.strip() == "never":
        return 0
    match = re.fullmatch(r"([0-9]{1,10})([smhdw]?)", text.strip())
    seconds = int(match.group(1)) * _UNITS[match.group(2)] if match else 0
    if 0 < seconds <= _LONGEST:
        return seconds
    raise ConfigError("expires: expected never, or up to ten years as in 90, 30m, 2h or 7d, got %r" % clip(text))


def moment_of(text: t.Any) -> float | None:
    """Convert a time such as 2026-11-27T01:30:00Z to seconds since the epoch; ``None`` if ``text`` is not such
    a time.
    """
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z", text) if isinstance(text, str) else None
    try:
        return calendar.timegm(time.strptime(match.group(1), "%Y-%m-%dT%H:%M:%S")) if match else None
    except ValueError:
        return None


def to_renew(held: t.Any, wanted: int | None, now: float) -> bool:
    """Return whether a document must be written again so that it expires in ``wanted`` seconds (0: never, ``None``: any
    expiry).

    ``held`` is the time at which the document expires, or ``None`` for never; ``now`` is the current time in seconds.
    The result is true if the document expires in less than half of ``wanted`` seconds or in more than ``wanted``
    seconds. A task that runs often therefore does not write the document each time, but only after half of the
    lifetime.
    """
    if wanted is None:
        return False
    moment = moment_of(held)
    if moment is None or wanted == 0:
        return (moment is None) == bool(wanted)
    return not wanted / 2 <= moment - now <= wanted + _TOLERANCE


def seconds_until(text: str) -> int:
    """Return the whole seconds until a time such as 2026-11-27T01:30:00Z by the local clock; 0 if the time is over or
    ``text`` is not such a time.
    """
    moment = moment_of(text)
    return 0 if moment is None else min(max(0, int(moment - time.time())), _LONGEST)
