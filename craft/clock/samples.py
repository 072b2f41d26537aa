"""One question to a time server and its answer: what may be believed, and what it then says.

Knows: a reply's fields, what was asked, and two readings of a steady clock that nobody sets (ns). Must not
know: sockets, or what time it is here.

Invariants
- What is not an answer to *this* question (another echo) is never believed, and does not end the wait for
  the answer.
- The true offset lies within `Sample.error_ns` of `Sample.offset_ns`, if the server is as good as it says,
  whichever way the delay was spent.

Reference: RFC 5905, 7.3 to 8; 7.4 for the kiss-o'-death.
"""

from __future__ import annotations

from typing import NamedTuple

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000

DRIFT_PPM_MAX = 100
"""A quartz clock that nobody corrects runs wrong by no more than this: its maker's bound, heat and age in."""

VERSIONS = (3, 4)
MODE_SERVER = 4
LEAP_UNSYNCHRONISED = 3
STRATUM_MAX = 15
PRECISION_LOG2_MAX = 0
"""A server whose clock ticks more slowly than once a second is none."""

ROOT_DISTANCE_NS_MAX = 1_500 * MS_NS
"""A server that is further than this from a true clock, by its own word, is no help (as ntpd has it)."""

HELD_NS_MAX = 10 * MS_NS
"""A server may claim to have held a question longer than it was away, by this much: its clock is slewed."""

# Before 1968 by the era of 1900 is after 2036 by the next one: good until 2104.
_ERA_PIVOT_S = 2**31
_ERA_S = 2**32
_NTP_TO_UNIX_S = 2_208_988_800


class Reply(NamedTuple):
    """The fields of a packet. Timestamps are raw: 32 bits of seconds and 32 of their fraction."""

    leap: int
    version: int
    mode: int
    stratum: int
    precision: int
    root_delay_ns: int
    root_dispersion_ns: int
    reference: bytes
    originate: int
    receive: int
    transmit: int


class Asked(NamedTuple):
    """A question and when it was away. `nonce` went out as its transmit timestamp and must come back."""

    nonce: int
    sent_ns: int
    received_ns: int


class Sample(NamedTuple):
    """True time less the steady clock, as one answer tells, at the time when it was asked for."""

    at_ns: int
    offset_ns: int
    delay_ns: int
    error_ns: int

    def error_at(self, now_ns: int) -> int:
        """The bound as the steady clock's own drift has widened it since (RFC 5905: root distance)."""
        return self.error_ns + drift_ns(now_ns - self.at_ns)

    def interval(self, now_ns: int) -> tuple[int, int]:
        """The least and the greatest true offset that this sample allows now."""
        error = self.error_at(now_ns)
        return self.offset_ns - error, self.offset_ns + error


class Refused(NamedTuple):
    """An answer that is not believed."""

    reason: str
    answers: bool = True  # it answers this question: another answer will not come
    kiss: str = ""  # the code of a kiss-o'-death


def drift_ns(passed_ns: int) -> int:
    """How wrong a steady clock may have become, rounded up."""
    return -(-abs(passed_ns) * DRIFT_PPM_MAX // 1_000_000)


def unix_ns(timestamp: int) -> int:
    """A raw NTP timestamp as nanoseconds since the Unix epoch."""
    seconds, fraction = timestamp >> 32, timestamp & 0xFFFFFFFF
    if seconds < _ERA_PIVOT_S:
        seconds += _ERA_S
    return (seconds - _NTP_TO_UNIX_S) * SECOND_NS + (fraction * SECOND_NS >> 32)


def judge(reply: Reply, asked: Asked) -> Sample | Refused:
    """A sample, or why the reply is not believed."""
    if reply.originate != asked.nonce:
        return Refused("it echoes another question (late, duplicated or forged)", answers=False)
    reason = _header_fault(reply)
    if reason is not None:
        return reason
    return _measure(reply, asked)


def _header_fault(reply: Reply) -> Refused | None:
    """What makes the server's word worthless, whatever it says about the time."""
    if reply.mode != MODE_SERVER:
        return Refused(f"its mode is {reply.mode}, allowed: {MODE_SERVER} (server)")
    if reply.version not in VERSIONS:
        return Refused(f"its version is {reply.version}, allowed: {', '.join(map(str, VERSIONS))}")
    if reply.stratum == 0:
        code = reply.reference.decode("ascii", "replace").strip("\0 ")
        return Refused(f"it says kiss-o'-death {code!r}", kiss=code)
    if reply.leap == LEAP_UNSYNCHRONISED:
        return Refused("it says that it is not synchronised (leap indicator 3)")
    if reply.stratum > STRATUM_MAX:
        return Refused(f"its stratum is {reply.stratum}, allowed: 1 to {STRATUM_MAX}")
    if reply.precision > PRECISION_LOG2_MAX:
        return Refused(f"its precision is 2**{reply.precision} s, allowed: at most 1 s")
    distance = reply.root_delay_ns // 2 + reply.root_dispersion_ns
    if reply.root_delay_ns < 0 or distance > ROOT_DISTANCE_NS_MAX:
        said = f"{reply.root_delay_ns // MS_NS} ms of root delay and {reply.root_dispersion_ns // MS_NS} ms"
        return Refused(f"it says {said} of root dispersion, allowed: {ROOT_DISTANCE_NS_MAX // MS_NS} ms")
    return None


def _measure(reply: Reply, asked: Asked) -> Sample | Refused:
    """Offset and delay from the four timestamps, ours on the steady clock (RFC 5905, 8)."""
    if not reply.receive or not reply.transmit:
        return Refused("it has no timestamps")
    receive, transmit = unix_ns(reply.receive), unix_ns(reply.transmit)
    if transmit < receive:
        return Refused(f"it was sent {receive - transmit} ns before the question arrived")
    away = asked.received_ns - asked.sent_ns
    delay = away - (transmit - receive)
    if delay < -HELD_NS_MAX:
        return Refused(f"it was held {-delay // MS_NS} ms longer than it was away")
    offset = ((receive - asked.sent_ns) + (transmit - asked.received_ns)) // 2
    precision = max(1, int(SECOND_NS * 2.0**reply.precision))
    root = -(-reply.root_delay_ns // 2) + reply.root_dispersion_ns
    # abs: a server that holds too long has erred by that at least. One more for the rounding above.
    error = -(-abs(delay) // 2) + root + precision + drift_ns(away) + 1
    return Sample(asked.sent_ns, offset, max(0, delay), error)
