# SPDX-License-Identifier: MIT
"""The command ``xdp-gossip``: the agent itself, and everything an operator asks of a running one."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
