# SPDX-License-Identifier: MIT
"""Fleets on the kinds of interfaces and addresses that hosts have (docs/networks.md)."""
