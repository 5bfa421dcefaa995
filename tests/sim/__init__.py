# SPDX-License-Identifier: MIT
"""A deterministic simulation of whole clusters: real engines and codec, virtual time and network (docs/architecture.md)."""
