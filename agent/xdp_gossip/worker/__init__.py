# SPDX-License-Identifier: MIT
"""Worker processes with limits on time and memory, which check untrusted content without blocking the agent."""
