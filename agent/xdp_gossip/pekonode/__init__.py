# SPDX-License-Identifier: MIT
"""The protocol of PekoNode clusters, without its packet storms (docs/pekonode.md)."""

from .engine import PekoNodeEngine

__all__ = ["PekoNodeEngine"]
