"""A clock that asks several time servers, and believes a majority of them.

ntplib makes and reads the packets. Its `request` is not used: it accepts any packet from the server's address
(wrong mode, kiss-o'-death, an old answer), waits anew after each foreign one, and measures with the system's
clock, which may be stepped in between.

Invariants
- The loop never waits for a server: each question is asked in a worker thread, on a socket of its own.
- A question's transmit timestamp is 64 random bits. An answer must bring them back bit for bit, so one that
  is late, duplicated or forged from elsewhere is not believed; and a server does not learn our time.
- Samples are measured on a `Timeline`, which nobody sets. `now` depends on the system's clock only before the
  first agreement, and an hour after the last; `status` says so.

Reference: RFC 5905; the decisions are in `samples`, `selection`, `discipline` and `polling`, without any I/O.
"""

from __future__ import annotations

import logging
import random
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import ntplib
import trio

from craft import logs
from craft.clock.discipline import Discipline
from craft.clock.polling import Polling
from craft.clock.samples import SECOND_NS, Asked, Refused, Reply, Sample, judge
from craft.clock.selection import majority
from craft.clock.timeline import Reading, Timeline
from craft.types import TIMESTAMP_MAX, Timestamp

log = logging.getLogger("craft.clock")

PORT = 123
VERSION = 4
POLL_INTERVAL_S = 64.0
"""How often each server is asked: NTP's own default, and what a public one does not mind."""

TIMEOUT_S = 2.0
"""An answer that takes longer would say little: half of its delay is its error."""

PACKET_BYTES = 48
PACKET_BYTES_MAX = 1024
"""What is read of a packet; extensions and signatures behind the first 48 bytes are not looked at."""

PACKETS_MAX = 64
"""Packets that answer something else, after which a question is given up: somebody floods us."""

TEND_S = 1.0
"""How often suspends and the state are looked after."""

COMPLAINT_INTERVAL_MS = 60_000
"""At most one line of each kind is logged in this time."""

NOT_YET = "no majority of the time servers agrees yet: the system clock, error unknown"
SYNCHRONISED = "synchronised"
COASTING = "too few time servers answer: going on as it was, with a growing error"
NO_MAJORITY = "no majority of the time servers agrees: going on as it was, with a growing error"
ASLEEP = "the machine was asleep: asking anew, error unknown"
FALLING_BACK = "falling back to the system clock: error unknown"

_TIMESTAMPS = struct.Struct(">4Q")  # reference, originate, receive, transmit
_TRANSMIT_AT = 40

SocketAddress: TypeAlias = tuple[int, Any]
"""An address family and an address of it."""


class Answer(NamedTuple):
    """What became of a question: the address that was asked, if its name had one, and what it said."""

    address: SocketAddress | None
    said: Sample | Refused


# -- packets ---------------------------------------------------------------------------------------


def question(nonce: int) -> bytes:
    """A client's packet that says nothing about us."""
    packet: bytes = ntplib.NTPPacket(version=VERSION, mode=3).to_data()
    return packet[:_TRANSMIT_AT] + nonce.to_bytes(8, "big")


def read_reply(data: bytes) -> Reply | None:
    """A packet's fields, or None: it is none. The timestamps are read raw: ntplib's are rounded floats."""
    if len(data) < PACKET_BYTES:
        return None
    packet = ntplib.NTPPacket()
    try:
        packet.from_data(data)
    except ntplib.NTPException:
        return None
    _, originate, receive, transmit = _TIMESTAMPS.unpack_from(data, PACKET_BYTES - _TIMESTAMPS.size)
    return Reply(
        leap=packet.leap,
        version=packet.version,
        mode=packet.mode,
        stratum=packet.stratum,
        precision=packet.precision,
        root_delay_ns=int(packet.root_delay * SECOND_NS),
        root_dispersion_ns=int(packet.root_dispersion * SECOND_NS),
        reference=packet.ref_id.to_bytes(4, "big"),
        originate=originate,
        receive=receive,
        transmit=transmit,
    )


# -- one question, in a worker thread --------------------------------------------------------------


def resolve(host: str, port: int, attempt: int) -> SocketAddress:
    """One of a name's addresses: another at each attempt. Raises OSError. May take long."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, _, _, _, address = found[attempt % len(found)]
    return family, address


def exchange(address: SocketAddress, timeout_s: float, steady: Reading) -> Sample | Refused:
    """Ask once. Raises OSError where there is no network, or nobody at the address."""
    family, where = address
    with socket.socket(family, socket.SOCK_DGRAM) as endpoint:
        endpoint.connect(where)  # the kernel drops what comes from elsewhere
        nonce = secrets.randbits(64)
        deadline = time.monotonic() + timeout_s
        sent_ns = steady()
        endpoint.send(question(nonce))
        refused = Refused(f"no answer within {timeout_s:g} s", answers=False)
        for _ in range(PACKETS_MAX):
            endpoint.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = endpoint.recv(PACKET_BYTES_MAX)
            except TimeoutError:
                return refused
            said = _read(data, Asked(nonce, sent_ns, steady()))
            if isinstance(said, Sample) or said.answers:
                return said
            refused = said
            if time.monotonic() >= deadline:
                break
        return refused


def _read(data: bytes, asked: Asked) -> Sample | Refused:
    reply = read_reply(data)
    if reply is None:
        return Refused(f"{len(data)} bytes are no NTP packet", answers=False)
    return judge(reply, asked)


# -- the clock -------------------------------------------------------------------------------------


class _Source:
    """One time server."""

    def __init__(self, host: str, port: int, polling: Polling) -> None:
        self.host = host
        self.port = port
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.polling = polling
        self.address: SocketAddress | None = None  # the one that answered last
        self.attempts = 0
        self.asked = 0
        self.answers = 0
        self.refused = ""  # why the last answer was not believed

    def ask(self, timeout_s: float, steady: Reading) -> Answer:
        """Ask once. Blocks: for a worker thread. One at a time."""
        address = self.address
        try:
            address = address or resolve(self.host, self.port, self.attempts)
            return Answer(address, exchange(address, timeout_s, steady))
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no resolver takes
            return Answer(address, Refused(f"{type(error).__name__}: {error}"))


class NtpClock:
    """Slewed towards what a majority of time servers says; never stepped, but at its first agreement.

    `run` asks the servers; until then, and until a majority agrees, it is the system's clock with an unknown
    error.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        *,
        poll_interval_s: float = POLL_INTERVAL_S,
        timeout_s: float = TIMEOUT_S,
        rng: random.Random | None = None,
        timeline: Timeline | None = None,
        system: Callable[[], int] = time.time_ns,
    ) -> None:
        """`servers`: host and port of each, all different. Of three one may be wrong or lost, of five two.

        Raises ValueError without servers, or where one is named twice: it would have two votes.
        """
        if not servers or len(set(servers)) < len(servers):
            raise ValueError(f"servers: {list(servers)!r} is not allowed; allowed: at least one, each once")
        rng = rng or random.Random(secrets.randbits(64))
        self._sources = [_Source(host, port, Polling(poll_interval_s, rng)) for host, port in servers]
        self._timeout_s = timeout_s
        self._timeline = timeline or Timeline()
        self._system = system
        at = self._timeline.read()
        names = [source.name for source in self._sources]
        self._discipline = Discipline(names, offset_ns=system() - at, now_ns=at)
        self._awake_since = at
        self._suspends_seen = self._timeline.suspends
        self._hurry = trio.Event()
        self._state_seen = ""
        self._complaints = logs.RateLimited(
            log, interval_ms=COMPLAINT_INTERVAL_MS, monotonic_s=time.monotonic
        )

    # -- the port ---------------------------------------------------------------------------------

    def now(self) -> Timestamp:
        """Nanoseconds since the Unix epoch."""
        return min(TIMESTAMP_MAX, max(0, self._discipline.now(self._read())))

    def error(self) -> int | None:
        """Nanoseconds, as a majority of the servers allows; None before they agree, or long after."""
        return self._discipline.error(self._read())

    def status(self) -> dict[str, Any]:
        """Its state in words, the servers one by one, and who is outside of what the majority says."""
        at = self._read()
        return {
            "source": "ntp",
            "state": self._state(at),
            "error_ns": self._discipline.error(at),
            **self._discipline.status(at),
            "servers": [self._server_status(source, at) for source in self._sources],
        }

    async def run(self) -> None:
        """Ask the servers, each at its own pace, until cancelled."""
        async with trio.open_nursery() as nursery:
            limiter = trio.CapacityLimiter(len(self._sources))
            for source in self._sources:
                nursery.start_soon(self._poll, source, limiter)
            while True:
                self._tend()
                await trio.sleep(TEND_S)

    # -- asking -----------------------------------------------------------------------------------

    async def _poll(self, source: _Source, limiter: trio.CapacityLimiter) -> None:
        while not source.polling.ended:
            answer = await trio.to_thread.run_sync(
                source.ask, self._timeout_s, self._timeline.read, limiter=limiter, abandon_on_cancel=True
            )
            self._take(source, answer)
            hurry = self._hurry
            with trio.move_on_after(source.polling.wait_s()):
                await hurry.wait()

    def _take(self, source: _Source, answer: Answer) -> None:
        source.asked += 1
        said = answer.said
        if isinstance(said, Refused):
            self._refuse(source, said)
            return
        if answer.address != source.address:
            self._discipline.forget(source.name)
            source.address = answer.address
        source.answers += 1
        source.refused = ""
        source.polling.answered()
        at = self._read()
        if said.at_ns >= self._awake_since:  # asked before a suspend, it says nothing of now
            self._discipline.observe(source.name, said, at)

    def _refuse(self, source: _Source, refused: Refused) -> None:
        source.polling.failed(refused.kiss)
        source.refused = refused.reason
        source.attempts += 1
        if source.polling.failures > 1 and not source.polling.ended:
            source.address = None  # look its name up again
        self._complaints.event(
            ("refused", source.name),
            logging.WARNING,
            "time server not believed",
            server=source.name,
            reason=refused.reason,
        )

    # -- looking after it -------------------------------------------------------------------------

    def _read(self) -> int:
        """The steady clock. After a suspend nothing is known."""
        at = self._timeline.read()
        if self._timeline.suspends != self._suspends_seen:
            self._suspends_seen = self._timeline.suspends
            self._awake_since = at
            self._discipline.restart(at)
            for source in self._sources:
                source.polling.restart()
            self._hurry.set()
            self._hurry = trio.Event()
        return at

    def _tend(self) -> None:
        """Follow the system's clock while there is nothing better, and log a new state."""
        at = self._read()
        if self._discipline.falls_back(at):
            self._discipline.follow(self._system() - at, at)
        state = self._state(at)
        if state != self._state_seen:
            logs.event(log, logging.INFO if state == SYNCHRONISED else logging.WARNING, "ntp", state=state)
            self._state_seen = state

    def _state(self, at: int) -> str:
        discipline = self._discipline
        if discipline.falls_back(at):
            return FALLING_BACK if discipline.agreed else NOT_YET
        if discipline.error(at) is None:
            return ASLEEP
        if discipline.agreement is None:
            return NO_MAJORITY
        answering = sum(source.answers > 0 and not source.polling.failures for source in self._sources)
        return SYNCHRONISED if answering >= majority(len(self._sources)) else COASTING

    def _server_status(self, source: _Source, at: int) -> dict[str, Any]:
        return {
            "server": source.name,
            "asked": source.asked,
            "answers": source.answers,
            "refused": source.refused,
            **self._discipline.server_status(source.name, at),
        }
