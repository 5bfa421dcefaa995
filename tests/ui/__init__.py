# SPDX-License-Identifier: MIT
"""The web page in a real browser, over real agents."""
