# SPDX-License-Identifier: MIT
"""The HTTP API: its server (``app``, ``server`` and a module for each topic) and its client (``client``)."""
