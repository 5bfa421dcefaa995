# SPDX-License-Identifier: MIT
"""Reads the configuration file strictly, checks all of it, and returns it as immutable values."""
