# SPDX-License-Identifier: MIT
"""An engine with PekoNode's protocol, which however relays each rumor only once (docs/pekonode.md)."""

from .engine import PekoNodeEngine

__all__ = ["PekoNodeEngine"]
