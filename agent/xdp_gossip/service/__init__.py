# SPDX-License-Identifier: MIT
"""The agent as a service: the process, its log, what systemd is told, addresses and seeds that come and go."""
