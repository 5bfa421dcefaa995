# SPDX-License-Identifier: MIT
"""Bounded worker processes for content that others wrote, so that checking it never blocks the agent."""
