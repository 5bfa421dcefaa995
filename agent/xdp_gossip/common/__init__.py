# SPDX-License-Identifier: MIT
"""Modules for all parts of the agent: a record of unexpected errors, rate-limited log lines, handling of forks."""
