# SPDX-License-Identifier: MIT
"""A deterministic simulation of whole clusters: real engines, virtual time and network."""
