# SPDX-License-Identifier: MIT
"""The Metadata: the documents held, their versions and digests, and their expiry."""
