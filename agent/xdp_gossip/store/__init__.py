# SPDX-License-Identifier: MIT
"""The durable state of an agent."""
