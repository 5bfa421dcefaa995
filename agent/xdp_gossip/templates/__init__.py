# SPDX-License-Identifier: MIT
"""Renders files on this host from local templates, documents and the node list (docs/rendering.md)."""
