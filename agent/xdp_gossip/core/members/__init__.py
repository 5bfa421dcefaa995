# SPDX-License-Identifier: MIT
"""The NodeList: known members, their replay windows, relay targets, and the timing of the protocol."""
