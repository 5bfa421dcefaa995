# SPDX-License-Identifier: MIT
"""Rendered files: creates files on this host from local templates, documents and the node list (docs/rendering.md)."""
