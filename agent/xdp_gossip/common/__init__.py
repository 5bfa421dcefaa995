# SPDX-License-Identifier: MIT
"""What every wing may use: errors nobody foresaw, log lines that others can cause, forks."""
