# SPDX-License-Identifier: MIT
"""What every wing may use: a record of unforeseen errors, rate-limited log lines, forks."""
