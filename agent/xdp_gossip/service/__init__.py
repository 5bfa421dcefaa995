# SPDX-License-Identifier: MIT
"""The agent as a service: the process, its log, systemd, and addresses and seed names that come and go."""
