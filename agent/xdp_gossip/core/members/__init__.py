# SPDX-License-Identifier: MIT
"""The NodeList: who is known, how fast the protocol goes, whom rumors are relayed to, which packets were seen."""
