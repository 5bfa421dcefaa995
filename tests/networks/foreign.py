# SPDX-License-Identifier: MIT
"""Programs of others, as bytes: loaded and attached with libbpf, gone when the context ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator

from tests.planes.fleet import inside
from xdp_gossip.dataplane import libbpf

#: enum bpf_prog_type
SCHED_CLS, XDP = 3, 6
_VLAN_PUSH = 18  # bpf_skb_vlan_push

TCX_PASS, TCX_DROP, TCX_NEXT = 0, 2, -1
XDP_PASS = 2


def _instruction(code: int, registers: int, immediate: int) -> bytes:
    return struct.pack("=BBhi", code, registers, 0, immediate)


def returning(verdict: int) -> bytes:
    """A program that says the same of every frame. Any verdict but TCX_NEXT ends the chain."""
    return _instruction(0xB7, 0, verdict) + _instruction(0x95, 0, 0)


def tagging(vlan: int) -> bytes:
    """A program that gives every frame a VLAN tag, beside the frame, for the device to insert."""
    return (
        _instruction(0xB7, 2, socket.htons(0x8100))
        + _instruction(0xB7, 3, vlan)
        + _instruction(0x85, 0, _VLAN_PUSH)
        + returning(TCX_PASS)
    )


@contextlib.contextmanager
def loaded(program: bytes, kind: int) -> Iterator[int]:
    """Descriptor of a program of this kind."""
    code = ctypes.create_string_buffer(program, len(program))
    count = ctypes.c_size_t(len(program) // 8)
    descriptor = libbpf.library().bpf_prog_load(kind, b"foreign", b"GPL", code, count, None)
    libbpf.check(descriptor, "foreign program")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def attached(program: bytes, namespace: str, device: str, *, egress: bool) -> Iterator[None]:
    """A program at a TCX hook (Linux 6.6) of an interface, behind those that are there."""
    with loaded(program, SCHED_CLS) as descriptor:
        with inside(namespace):
            index = socket.if_nametoindex(device)
            link = libbpf.link_create(descriptor, index, libbpf.TCX_EGRESS if egress else libbpf.TCX_INGRESS)
        try:
            yield
        finally:
            os.close(link)
