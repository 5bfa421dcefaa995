# SPDX-License-Identifier: MIT
"""Anti-entropy: compare digests, sync what differs, fetch and supply documents."""
