# SPDX-License-Identifier: MIT
"""The NodeList: known members, timing of the protocol, relay targets, and replay windows."""
