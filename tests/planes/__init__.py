# SPDX-License-Identifier: MIT
"""Whole agents on every plane: UDP, TC, generic and native XDP, in network namespaces."""
