# SPDX-License-Identifier: MIT
"""Worker processes with limits on time and memory. They check untrusted content, so that it never blocks the agent."""
