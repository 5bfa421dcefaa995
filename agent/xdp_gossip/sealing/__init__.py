# SPDX-License-Identifier: MIT
"""Seals documents to the keys of hosts, and opens them (HPKE, RFC 9180)."""
