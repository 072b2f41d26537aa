"""The kernel's word on its own clock, and how politely it is asked."""

from __future__ import annotations

import ctypes

import pytest

from craft.clock import kernel
from craft.clock.kernel import STA_NANO, STA_UNSYNC, TIME_ERROR, KernelState, interpret
from craft.clock.system import GROWTH_PPM, REFRESH_NS, SystemClock

KEPT = KernelState(code=0, status=0x2001, maxerror_us=1500, offset=0)


ANSWERS: dict[str, tuple[KernelState | str, int | None, str]] = {
    "kept": (KEPT, 1_500_000, "kept by the system"),
    "leap_second": (KEPT._replace(code=1), 1_500_000, "kept by the system"),
    "nanoseconds_to_slew": (KEPT._replace(offset=-700), 1_500_700, "kept"),
    "microseconds_to_slew": (KEPT._replace(status=1, offset=-700), 2_200_000, "kept"),
    "flag": (KEPT._replace(status=STA_NANO | STA_UNSYNC), None, "nobody keeps its clock"),
    "code": (KEPT._replace(code=TIME_ERROR), None, "nobody keeps its clock"),
    "nonsense": (KEPT._replace(maxerror_us=-1), None, "maximum error of -1 us"),
    "forbidden": ("the kernel does not say (Operation not permitted)", None, "not permitted"),
}


@pytest.mark.parametrize(("answer", "error_ns", "state"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_kernel_says_is_read_as_it_is_meant(
    answer: KernelState | str, error_ns: int | None, state: str
) -> None:
    """A bound where somebody keeps the clock; unknown, and why, in every other case."""
    kept = interpret(answer)
    assert kept.error_ns == error_ns
    assert state in kept.state


def test_this_machine_can_be_asked() -> None:
    """Whatever it says, it is an answer or a reason, and nothing is changed by asking twice."""
    first, second = kernel.ask(), kernel.ask()
    assert isinstance(first, KernelState | str)
    assert type(first) is type(second)
    if isinstance(first, KernelState):
        assert 0 <= first.code <= TIME_ERROR
        assert first.maxerror_us >= 0


def test_a_c_library_without_the_call_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another C library, or none that can be loaded: no exception."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    assert "no adjtimex" in str(kernel.ask())

    def fail(*_: object, **__: object) -> None:
        raise OSError("cannot be loaded")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert "cannot be loaded" in str(kernel.ask())
    assert SystemClock().error() is None


def test_another_system_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its struct is another one."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert kernel.ask() == "the kernel of darwin is not asked"


def test_the_kernel_is_asked_at_most_once_a_second() -> None:
    """The error is wanted once a turn; between two questions it grows as the kernel would let it grow."""
    asked = []
    now = [0]

    def ask() -> KernelState:
        asked.append(now[0])
        return KEPT

    clock = SystemClock(ask=ask, monotonic=lambda: now[0])
    assert [clock.error() for _ in range(100)] == [1_500_000] * 100
    now[0] = REFRESH_NS // 2
    assert clock.error() == 1_500_000 + REFRESH_NS // 2 * GROWTH_PPM // 10**6
    assert asked == [0]
    now[0] = REFRESH_NS
    assert clock.error() == 1_500_000
    assert asked == [0, REFRESH_NS]
    assert clock.status()["state"].startswith("kept by the system")
