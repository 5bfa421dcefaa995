# SPDX-License-Identifier: MIT
"""The command ``xdp-gossip``: runs the agent, and queries or changes a running agent."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
