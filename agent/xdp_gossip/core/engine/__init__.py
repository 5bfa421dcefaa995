# SPDX-License-Identifier: MIT
"""The native protocol as a state machine without I/O (see ``interface.py``).

:class:`Parts` connects the parts. :class:`Drive` is the interface to the runtime: packets, time, and the records of a
kernel data plane. :class:`Engine` adds what users ask: members, and queries to other members. Its attribute
``documents`` is what they read and write documents by.
"""

from .asks import Engine

__all__ = ["Engine"]
