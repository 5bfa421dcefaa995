# SPDX-License-Identifier: MIT
"""Failure detection by round trips: who observes whom, what an observer concludes, and what the members make of it."""
