# SPDX-License-Identifier: MIT
"""The HTTP API: the server (``app``, ``server`` and a module for each topic) and its ``client``."""
