# SPDX-License-Identifier: MIT
"""A node: an engine with its store and its transport, and the queries that an application can make to a node.

The public interfaces are the modules ``nodelist`` and ``blocking``.
"""
