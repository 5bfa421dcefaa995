# SPDX-License-Identifier: MIT
"""Faults of a kernel data plane in use: noticed, told, and mended without anybody's help."""
