# SPDX-License-Identifier: MIT
"""The native protocol as a state machine without I/O (see ``interface.py``).

:class:`Parts` wires the parts. :class:`Drive` is what a runtime drives: packets, time, notes of a kernel data plane.
:class:`Engine` adds what its users ask: members, documents, questions to other members.
"""

from .asks import Engine

__all__ = ["Engine"]
