# SPDX-License-Identifier: MIT
"""A node: an engine that is run, its disk and its network, and what is asked of it.

``nodelist`` and ``blocking`` are its face.
"""
