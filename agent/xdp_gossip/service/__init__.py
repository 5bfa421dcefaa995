# SPDX-License-Identifier: MIT
"""The agent as a service: its process, log, systemd notifications, listening addresses and seed names."""
