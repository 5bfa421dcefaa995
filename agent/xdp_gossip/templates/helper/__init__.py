# SPDX-License-Identifier: MIT
"""The privileged helper: puts rendered files in place (docs/rendering.md). It imports neither asyncio nor Jinja2."""
