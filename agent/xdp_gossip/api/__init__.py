# SPDX-License-Identifier: MIT
"""The HTTP API: its server (modules ``app``, ``server`` and one per topic) and its client (module ``client``)."""
