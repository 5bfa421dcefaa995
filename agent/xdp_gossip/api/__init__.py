# SPDX-License-Identifier: MIT
"""The HTTP API: server side (``app``, ``server`` and a module for each topic) and its ``client``."""
