"""What the kernel says of its own clock: whether somebody keeps it, and within what.

chrony (with `rtcsync`), ntpd, and PTP's `phc2sys` tell the kernel how good its clock is; `adjtimex` tells us.
Asked with `modes = 0`, it changes nothing and needs no rights.

Invariant: whatever is missing or forbidden (another system, another libc, a container's filter), the answer
is that nothing is known, and why; never an exception.

Reference: adjtimex(2); RFC 1589.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import NamedTuple

MICROSECOND_NS = 1000

TIME_ERROR = 5
"""What the call returns where the clock is not synchronised."""

STA_UNSYNC = 0x0040
STA_NANO = 0x2000
"""`offset` is in nanoseconds, not in microseconds."""


class Timex(ctypes.Structure):
    """`struct timex`, as the C libraries of Linux have it; the rest is only room for what they may write."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 64),
    )


class KernelState(NamedTuple):
    """The part of the answer that counts. `code` is what the call returned."""

    code: int
    status: int
    maxerror_us: int
    offset: int


class Kept(NamedTuple):
    """How well the clock is kept: within `error_ns`; None is unknown. `state` says it in words."""

    error_ns: int | None
    state: str


def ask() -> KernelState | str:
    """Ask the kernel, or say why it cannot be asked. Takes microseconds."""
    if not sys.platform.startswith("linux"):
        return f"the kernel of {sys.platform} is not asked"
    timex = Timex()
    try:
        library = ctypes.CDLL(None, use_errno=True)
        code = library.adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError, TypeError) as error:
        return f"the C library has no adjtimex ({error})"
    if code < 0:
        return f"the kernel does not say ({os.strerror(ctypes.get_errno())})"
    return KernelState(code, timex.status, timex.maxerror, timex.offset)


def interpret(answer: KernelState | str) -> Kept:
    """The error bound that an answer states: `maxerror`, and what is still to be corrected."""
    if isinstance(answer, str):
        return Kept(None, answer)
    if answer.code == TIME_ERROR or answer.status & STA_UNSYNC:
        return Kept(None, "the kernel says that nobody keeps its clock")
    if answer.maxerror_us < 0:
        return Kept(None, f"the kernel states a maximum error of {answer.maxerror_us} us")
    unit_ns = 1 if answer.status & STA_NANO else MICROSECOND_NS
    error_ns = answer.maxerror_us * MICROSECOND_NS + abs(answer.offset) * unit_ns
    return Kept(error_ns, "kept by the system, which states its error")
