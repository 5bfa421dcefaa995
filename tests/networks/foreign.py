# SPDX-License-Identifier: MIT
"""Programs of others at TC, as bytes: loaded and attached with libbpf, gone when the context ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator

from tests.planes.fleet import inside

_SCHED_CLS, _TCX_INGRESS, _TCX_EGRESS = 3, 46, 47
_VLAN_PUSH = 18  # bpf_skb_vlan_push

TCX_PASS, TCX_DROP, TCX_NEXT = 0, 2, -1


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
def attached(program: bytes, namespace: str, device: str, *, egress: bool) -> Iterator[None]:
    """A program at a TCX hook (Linux 6.6) of an interface, behind those that are there."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    loaded = libbpf.bpf_prog_load(_SCHED_CLS, b"foreign", b"GPL", code, ctypes.c_size_t(len(program) // 8), None)
    assert loaded >= 0, f"foreign program not loaded: {os.strerror(-loaded)}"
    try:
        with inside(namespace):
            index = socket.if_nametoindex(device)
            link = libbpf.bpf_link_create(loaded, index, _TCX_EGRESS if egress else _TCX_INGRESS, None)
        assert link >= 0, f"foreign program not attached to {device}: {os.strerror(-link)}"
        try:
            yield
        finally:
            os.close(link)
    finally:
        os.close(loaded)
