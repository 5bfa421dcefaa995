# SPDX-License-Identifier: MIT
"""The privileged helper that installs rendered files (docs/rendering.md).

To save memory, the helper imports neither asyncio nor Jinja2.
"""
