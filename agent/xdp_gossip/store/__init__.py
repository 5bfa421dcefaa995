# SPDX-License-Identifier: MIT
"""Stores for the state of an agent: its incarnation, known nodes and documents."""
