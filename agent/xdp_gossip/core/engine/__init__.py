# SPDX-License-Identifier: MIT
"""The native protocol as a state machine without I/O (see ``interface.py``)."""

from .drive import Engine

__all__ = ["Engine"]
