# SPDX-License-Identifier: MIT
"""Anti-entropy: members compare digests, sync the differences, and fetch documents from each other."""
