# SPDX-License-Identifier: MIT
"""The names of the programs, their kinds and their source files."""

from __future__ import annotations

from .. import libbpf

INGRESS, EGRESS, TC_INGRESS, TC_EGRESS = "xg_xdp_ingress", "xg_xdp_egress", "xg_tc_ingress", "xg_tc_egress"
WATCH = "xg_watch"
SEND, SEND_WATCH, KNOCK = "xg_selftest_send", "xg_selftest_watch", "xg_selftest_knock"

#: Names of the source files. ``SOURCES``: source file -> its programs -> the kind of each (container.KINDS).
MAIN, SELFTEST = "dataplane.c", "selftest.c"
SOURCES = {
    MAIN: {
        INGRESS: "XDP",
        EGRESS: "XDP_DEVMAP",
        WATCH: "RAW_TRACEPOINT",
        TC_INGRESS: "SCHED_CLS",
        TC_EGRESS: "SCHED_CLS",
    },
    SELFTEST: {SEND: "XDP", SEND_WATCH: "RAW_TRACEPOINT", KNOCK: "SCHED_CLS"},
}
#: Kind -> type of the program, and the expected attach type (0 for none).
KINDS = {
    "XDP": (libbpf.PROG_XDP, 0),
    "XDP_DEVMAP": (libbpf.PROG_XDP, libbpf.XDP_DEVMAP),
    "SCHED_CLS": (libbpf.SCHED_CLS, 0),
    "RAW_TRACEPOINT": (libbpf.RAW_TRACEPOINT, 0),
}
