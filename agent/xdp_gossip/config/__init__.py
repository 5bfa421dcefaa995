# SPDX-License-Identifier: MIT
"""The configuration file: read strictly, checked completely, turned into immutable values."""
