# SPDX-License-Identifier: MIT
"""The configuration file: read strictly, checked completely, and turned into immutable values."""
