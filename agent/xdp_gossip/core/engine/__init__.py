# SPDX-License-Identifier: MIT
"""The engine of the native protocol, a state machine without I/O (see ``interface.py``).

:class:`Parts` creates and connects the parts of a member. :class:`Drive` adds the interface to the runtime: packets,
time, and the records of a kernel data plane. :class:`Engine` adds the operations for users: reading the members, and
queries to other members. Users read and write documents through the attribute ``documents``.
"""

from .asks import Engine

__all__ = ["Engine"]
