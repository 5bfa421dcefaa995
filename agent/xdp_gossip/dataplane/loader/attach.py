# SPDX-License-Identifier: MIT
"""Attaches programs through links, or reports the reason why a program cannot be attached.

Attaching a link never replaces a foreign program, and a foreign program cannot replace the link.
"""

from __future__ import annotations

import errno
import os

from .. import interfaces, libbpf
from . import traps
from .errors import Refused
from .settings import GENERIC, NATIVE

#: Environment variable: with the value ``clsact``, the loader uses a clsact queueing discipline even if the kernel has
#: TCX.
TC_VARIABLE = "XDP_GOSSIP_DATAPLANE_TC"
_XDP_FLAGS = {NATIVE: libbpf.XDP_NATIVE, GENERIC: libbpf.XDP_GENERIC}
_DRIVER_SAYS_NO = (
    *(errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC, errno.ENODEV, errno.ERANGE, errno.EMSGSIZE, errno.ENOTSUP),
    *(errno.ENOMEM, errno.EPROTO),
)
_TCX_KINDS = {"ingress": libbpf.TCX_INGRESS, "egress": libbpf.TCX_EGRESS}


def link_xdp(program: int, interface: interfaces.Interface, mode: str) -> int:
    """Attach a program to the interface's XDP hook and return the link. Raises ``Refused``."""
    try:
        return libbpf.link_create(program, interface.index, libbpf.XDP, _XDP_FLAGS[mode])
    except OSError as error:
        raise why_no_xdp(error, interface, mode) from None


def link_tcx(program: int, interface: interfaces.Interface, hook: str) -> int | None:
    """Attach a program at the head of the interface's TCX hook and return the link; None if the kernel has no TCX.

    Kernels before 6.6 have no TCX. The program is placed at the head, because a program that ends the chain, like
    Cilium's programs, prevents all later programs from running. Our program lets every packet that does not belong to
    the agent continue to the next program. Raises ``Refused``.
    """
    if os.environ.get(TC_VARIABLE) == "clsact":
        return None
    try:
        return libbpf.link_create(program, interface.index, _TCX_KINDS[hook], libbpf.BEFORE)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise why_no_tc(error, interface, hook) from None


def incumbent(interface: interfaces.Interface) -> str:
    """Describe the program that occupies the interface's XDP hook; "" if the hook is free. Raises ``OSError``."""
    now = interfaces.by_index(interface.index)
    if now is None or not now.xdp_mode:
        return ""
    program = min(now.programs, default=0)
    name = libbpf.program_name(program)
    return f"program {program}{f' ({name})' if name else ''} is attached to {now.name} in {now.xdp_mode} mode"


def refuse_incumbent(interface: interfaces.Interface) -> None:
    """Raise ``Refused`` if a foreign program is attached to the interface's XDP hook. Raises ``OSError``."""
    who = incumbent(interface)
    if who:
        raise Refused(
            f"{interface.name} has an XDP program already: {who}",
            f"keep it, or detach it: ip link show {interface.name}",
        )


def why_no_xdp(error: OSError, interface: interfaces.Interface, mode: str) -> Refused:
    """Build an error with a reason and a remedy, after the kernel has refused to create an XDP link."""
    name, number = interface.name, error.errno
    code = errno.errorcode.get(number or 0, "no errno")
    if number in (errno.EBUSY, errno.EEXIST):
        who = incumbent(interface) or "another program was attached a moment ago"
        return Refused(
            f"{name} has an XDP program already ({code}): {who}", f"keep it, or detach it: ip link show {name}"
        )
    if number in _DRIVER_SAYS_NO and mode == NATIVE and interface.mtu > 1500 and interface.mtu > traps.LARGE_MTU:
        return Refused(
            f"the driver of {name} refuses native XDP ({code}), most likely for its MTU of {interface.mtu}",
            f"ip link set {name} mtu 1500 (many drivers take up to {traps.LARGE_MTU})",
        )
    if number in _DRIVER_SAYS_NO:
        text = (
            f"the driver of {name} refuses {mode} ({code}): it cannot, lacks free queues, or an offload is in its way"
        )
        return Refused(text, traps.native_remedy(interface) if mode == NATIVE else "dmesg says more; TC works without")
    return _no_permission(error, f"XDP on {name}") or Refused(f"XDP on {name}: {error.strerror} ({code})", "see dmesg")


def why_no_tc(error: OSError, interface: interfaces.Interface, hook: str) -> Refused:
    """Build an error with a reason and a remedy, after the kernel has refused to attach a TC program."""
    what = f"TC {hook} of {interface.name}"
    code = errno.errorcode.get(error.errno or 0, "no errno")
    if error.errno == errno.ERANGE:
        return Refused(f"{what} is full: 64 programs are there ({code})", "detach some: bpftool net")
    return _no_permission(error, what) or Refused(f"{what}: {error.strerror} ({code})", "tc filter show; dmesg")


def _no_permission(error: OSError, what: str) -> Refused | None:
    if error.errno not in (errno.EPERM, errno.EACCES):
        return None
    remedy = "run the loader as root with CAP_SYS_ADMIN and CAP_NET_ADMIN; a container or lockdown may forbid it"
    return Refused(f"{what}: {error.strerror}", remedy)
