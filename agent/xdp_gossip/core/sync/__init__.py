# SPDX-License-Identifier: MIT
"""Anti-entropy: digests compared, what differs exchanged, documents pulled and supplied."""
