# SPDX-License-Identifier: MIT
"""An engine for PekoNode's protocol. Unlike a Go node, the engine relays each rumor only once (docs/pekonode.md)."""

from .engine import PekoNodeEngine

__all__ = ["PekoNodeEngine"]
