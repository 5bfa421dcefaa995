# SPDX-License-Identifier: MIT
"""What several suites of tests share: agents as processes, fleets of them, a served API, free ports, patience."""
