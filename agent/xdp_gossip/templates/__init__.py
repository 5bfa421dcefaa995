# SPDX-License-Identifier: MIT
"""Rendered files: local templates, documents and the node list become files on this host (docs/rendering.md)."""
