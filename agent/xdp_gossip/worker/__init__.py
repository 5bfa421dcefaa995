# SPDX-License-Identifier: MIT
"""Work on what others wrote, in processes that are bounded in time and memory, so that nothing waits for it."""
