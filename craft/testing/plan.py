"""The plan of a run: everything that a seed decides before the run begins, as plain data.

Knows: shapes, speeds, the list of faults. A plan can be written down, cut down and replayed: that is what a
shrunk failure is.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from craft.limits import CLIENT_RESULTS_BYTES_MAX, CLIENT_SESSION_TTL_MS, EngineLimits
from craft.testing.scripts import checked

MS = 1_000_000
SECOND = 1000 * MS

FORMAT = 1
"""Of a plan that is written down."""

Span = tuple[int, int]
"""Least and greatest, both in ns."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One piece of bad luck: it begins at a time or at a moment, and ends after `duration` ns.

    `on` names the moment (see `craft.testing.moments`), the `nth` of which at or after `at` begins it; empty:
    it begins at `at`. `choice` is the randomness of everything that is chosen when it begins, so that it does
    the same whatever other faults there are. A permanent one lasts through the liveness phase.
    """

    number: int
    kind: str
    at: int
    duration: int
    choice: int
    on: str = ""
    nth: int = 1
    permanent: bool = False

    def words(self) -> str:
        """The fault, for people."""
        when = f"at {self.at / MS:.0f} ms" if not self.on else f"on {self.on} number {self.nth}"
        return f"#{self.number} {self.kind} {when}"


@dataclass(frozen=True, slots=True)
class MemberChange:
    """The operator changes the members; `choice` is the randomness of everything that is chosen then."""

    at: int
    kind: str
    choice: int


@dataclass(frozen=True, slots=True)
class RemoteClients:
    """Clients that write as a remote client does: in a session, asking again until they are answered."""

    clients: int  # the first so many of the plan's
    ttl_ms: int = CLIENT_SESSION_TTL_MS  # that they ask for
    window: int = 1  # calls of one client at once
    patience: int = 300 * MS  # without an answer another server is asked; twice as long each time
    lost: float = 0.0  # the share of answers that do not reach the client
    closes: float = 0.02  # how often a client closes its session before it does something, and begins another
    silence: Span = (0, 0)  # a client stands still for so long now and then; (0, 0): never
    results_bytes_max: int = CLIENT_RESULTS_BYTES_MAX  # kept for requests that are repeated, on each server


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """How snapshots are written and restored. Times in ns."""

    write: Span
    restore: Span
    cut_short: float = 0.0  # the share of writes in the middle of which the power goes
    kept: float | None = None  # state machines keep their data themselves; the share of writes that is synced


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    servers: int = 3
    groups: int = 3
    limits: EngineLimits = field(default_factory=EngineLimits)
    delay: Span = (200_000, 400_000)
    sync: Span = (200_000, 600_000)
    apply: Span = (0, 0)
    turn: Span = (0, 0)
    loss: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    wire: bool = False  # every frame is encoded and decoded
    tail_bytes_max: int | None = None  # of a log handed out at recovery; None: the real default
    clock_step: int = 1  # clocks are multiples of this: a coarse one makes ties
    clock_offsets: tuple[int, ...] = ()  # of each server's clock at the start
    workload: str = "counter"
    clients: int = 3
    think: Span = (10 * MS, 100 * MS)  # between a client's operations
    patience: int = 3 * SECOND  # a client that waits longer goes on with something else meanwhile
    forwarded: bool = False  # clients ask servers that lead nothing, where there are any
    reads: float = 0.3  # the share of reads
    seen: float = 0.0  # the share of reads whose clients want no more than what they have seen
    committed: float = 0.0  # the share of writes whose clients want no more than the level `committed`
    clock_error: int | None = None  # the bound of all clocks' errors that is stated, and kept
    remote: RemoteClients | None = None  # clients with sessions of their own
    snapshots: SnapshotPlan | None = None  # snapshots are taken, and logs compacted; None: never
    duration: int = 5 * SECOND  # of the fault phase
    turns_max: int | None = None  # it ends earlier where all servers together have taken so many
    faults: tuple[Fault, ...] = ()
    changes: tuple[MemberChange, ...] = ()  # of the members; none: they stay as they are

    def to_json(self) -> str:
        """The plan, written down."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan that was written down. Raises ValueError naming what is wrong with it."""
        try:
            found = checked(cls, json.loads(text), "the plan")
            if found.pop("format", None) != FORMAT:
                raise ValueError(f"not a plan of format {FORMAT}")
            found["limits"] = EngineLimits(**checked(EngineLimits, found["limits"], "limits"))
            found["remote"] = _remote(found.get("remote"))
            found["snapshots"] = _snapshots(found.get("snapshots"))
            found["faults"] = tuple(Fault(**checked(Fault, fault, "a fault")) for fault in found["faults"])
            found["changes"] = tuple(
                MemberChange(**checked(MemberChange, one, "a change")) for one in found.get("changes", ())
            )
            return cls(**found)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a plan: {error}") from error


def _snapshots(found: Any) -> SnapshotPlan | None:
    return None if found is None else SnapshotPlan(**checked(SnapshotPlan, found, "snapshots"))


def _remote(found: Any) -> RemoteClients | None:
    return None if found is None else RemoteClients(**checked(RemoteClients, found, "remote"))
