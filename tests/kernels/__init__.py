# SPDX-License-Identifier: MIT
"""The data plane on the kernels and compilers of distributions, which boot under QEMU's software emulation.

distributions (fetched, unpacked) -> compiled (``dataplane build`` in a root) -> guest (a kernel boots) -> matrix
(``load.py`` in the guest: what the verifier says). ``python -m tests.kernels`` prints the matrix.
"""
