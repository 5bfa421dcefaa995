# SPDX-License-Identifier: MIT
"""The privileged helper that puts rendered files in place (docs/rendering.md).

It imports neither asyncio nor Jinja2.
"""
