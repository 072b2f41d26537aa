"""One answer of a time server: what is believed, what is refused and why, and that its bound holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.clock.samples import (
    DRIFT_PPM_MAX,
    HELD_NS_MAX,
    SECOND_NS,
    Asked,
    Refused,
    Reply,
    Sample,
    judge,
    unix_ns,
)

MS = 1_000_000
TRUE = 1_700_000_000 * SECOND_NS
NTP_UNIX_S = 2_208_988_800
ASKED = Asked(nonce=0x1234_5678_9ABC_DEF0, sent_ns=50 * SECOND_NS, received_ns=50 * SECOND_NS + 10 * MS)


def raw(unix: int) -> int:
    """Nanoseconds since 1970 as a raw timestamp, in whatever era."""
    seconds, rest = divmod(unix, SECOND_NS)
    return ((seconds + NTP_UNIX_S) % 2**32) << 32 | (rest << 32) // SECOND_NS


GOOD = Reply(
    leap=0,
    version=4,
    mode=4,
    stratum=2,
    precision=-20,
    root_delay_ns=2 * MS,
    root_dispersion_ns=3 * MS,
    reference=b"\x7f\0\0\1",
    originate=ASKED.nonce,
    receive=raw(TRUE + 4 * MS),
    transmit=raw(TRUE + 6 * MS),
)


def test_a_good_answer_says_offset_and_error() -> None:
    """Half of the delay, the server's own distance and the drift meanwhile are the error."""
    sample = judge(GOOD, ASKED)
    assert isinstance(sample, Sample)
    assert abs(sample.offset_ns - (TRUE - 50 * SECOND_NS)) <= 1
    assert abs(sample.delay_ns - 8 * MS) <= 1
    assert 8 * MS <= sample.error_ns < 8.1 * MS
    assert sample.error_at(60 * SECOND_NS) - sample.error_ns == 10 * SECOND_NS * DRIFT_PPM_MAX // 10**6


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "wrong_echo": ({"originate": ASKED.nonce + 1}, "echoes another question"),
    "no_echo": ({"originate": 0}, "echoes another question"),
    "client_mode": ({"mode": 3}, "mode is 3"),
    "broadcast": ({"mode": 5}, "mode is 5"),
    "version": ({"version": 1}, "version is 1, allowed: 3, 4"),
    "rate": ({"stratum": 0, "reference": b"RATE", "leap": 3}, "kiss-o'-death 'RATE'"),
    "unsynchronised": ({"leap": 3}, "leap indicator 3"),
    "stratum": ({"stratum": 16}, "stratum is 16, allowed: 1 to 15"),
    "precision": ({"precision": 5}, r"precision is 2\*\*5 s"),
    "root_dispersion": (
        {"root_dispersion_ns": 2 * SECOND_NS},
        "2000 ms of root dispersion, allowed: 1500 ms",
    ),
    "root_delay": ({"root_delay_ns": 4 * SECOND_NS}, "4000 ms of root delay"),
    "no_receive": ({"receive": 0}, "no timestamps"),
    "no_transmit": ({"transmit": 0}, "no timestamps"),
    "sent_before_received": ({"receive": raw(TRUE + 7 * MS)}, "sent .* ns before the question arrived"),
    "held_too_long": ({"transmit": raw(TRUE + 40 * MS)}, "held 26 ms longer than it was away|held 25 ms"),
}


@pytest.mark.parametrize(("change", "reason"), LIES.values(), ids=LIES)
def test_a_lie_is_refused_by_name(change: dict[str, Any], reason: str) -> None:
    """Each way in which an answer cannot be right has its words."""
    refused = judge(GOOD._replace(**change), ASKED)
    assert isinstance(refused, Refused)
    with pytest.raises(ValueError, match=reason):
        raise ValueError(refused.reason)
    assert refused.answers == ("echo" not in reason), "only an answer to this question ends the wait for it"
    assert refused.kiss == ("RATE" if "RATE" in reason else "")


def test_the_next_era_of_ntp_is_no_surprise() -> None:
    """In February 2036 the seconds of NTP begin anew; ours do not."""
    for unix_s in (0, 1_700_000_000, 2_085_978_495, 2_085_978_496, 4_000_000_000):
        assert unix_ns(raw(unix_s * SECOND_NS)) == unix_s * SECOND_NS


@given(
    way=st.tuples(st.integers(0, SECOND_NS), st.integers(0, 100 * MS), st.integers(0, SECOND_NS)),
    server_error=st.integers(-50 * MS, 50 * MS),
    root_delay=st.integers(0, 100 * MS),
    drift_ppm=st.integers(-DRIFT_PPM_MAX, DRIFT_PPM_MAX),
    later=st.integers(0, 1000 * SECOND_NS),
)
def test_the_stated_interval_holds_the_true_offset(
    way: tuple[int, int, int], server_error: int, root_delay: int, drift_ppm: int, later: int
) -> None:
    """However the delay is split, how wrong the server admits to be, and how the steady clock drifts."""
    there, held, back = way

    def steady(passed: int) -> int:
        return 5 * SECOND_NS + passed + passed * drift_ppm // 10**6

    reply = GOOD._replace(
        receive=raw(TRUE + there + server_error),
        transmit=raw(TRUE + there + held + server_error),
        root_delay_ns=root_delay,
        root_dispersion_ns=max(0, abs(server_error) - root_delay // 2),
    )
    sample = judge(reply, Asked(ASKED.nonce, steady(0), steady(there + held + back)))
    assert isinstance(sample, Sample)
    passed = there + held + back + later
    low, high = sample.interval(steady(passed))
    assert low <= TRUE + passed - steady(passed) <= high


def test_a_server_that_is_slewed_may_seem_to_hold_a_question_a_little_too_long() -> None:
    """That is no lie yet, and its interval is as wide as the contradiction."""
    away = ASKED.received_ns - ASKED.sent_ns
    reply = GOOD._replace(transmit=GOOD.receive + (raw(TRUE + away + HELD_NS_MAX - MS) - raw(TRUE)))
    sample = judge(reply, ASKED)
    assert isinstance(sample, Sample)
    assert sample.delay_ns == 0
    assert sample.error_ns >= (HELD_NS_MAX - MS) // 2 - 1
