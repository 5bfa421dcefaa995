# SPDX-License-Identifier: MIT
"""A node: an engine with its disk and its network, and the questions that programs ask of it.

``nodelist`` and ``blocking`` are its public face.
"""
