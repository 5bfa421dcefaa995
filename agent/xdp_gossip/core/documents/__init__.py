# SPDX-License-Identifier: MIT
"""The Metadata: the documents of this member, with their versions, digests and expiry."""
