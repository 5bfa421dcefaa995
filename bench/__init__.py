# SPDX-License-Identifier: MIT
"""Repeatable benchmarks of the agent and its kernel data plane: ``python -m bench`` (docs/scaling.md)."""
