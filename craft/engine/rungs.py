"""The five rungs of the ladder, and how long command entries take from one to the next.

In each group led here one command entry at a time is watched: its probe notes the instant of every rung.
When it is applied, its `Climb` waits in `EngineState.climbs` for whoever keeps figures, and the next command
entry of the group gets a probe.

Knows: how far each log is, and the turns' instants. Must not know: clocks, histograms.

Invariants
- It costs nothing a command, a look into a dict an entry, and a look at each probe a turn; an idle server has
  no probe. Nothing is decided by it.
- Rungs are reached in the ladder's order: what is committed before it is persisted reaches both when it is
  persisted. So the times from rung to rung are none below zero, and they add up.
- A probe ends with its leadership (the entry may be lost) and after `PROBE_NS_MAX`. Of an entry that did not
  climb the whole ladder nothing is told: every rung has as many measurements as the next.
"""

from __future__ import annotations

from collections.abc import Callable

from craft.engine import proposing
from craft.engine.state import Climb, EngineState, Probe
from craft.raft import RaftState
from craft.sessions import OPEN
from craft.types import GroupId, Index, Proposal

RUNGS = ("appended", "persisted", "committed", "merged", "applied")

PROBE_NS_MAX = 60_000_000_000
"""An entry that is not applied after this long is watched no more: the figures are for servers that work."""

CLIMBS_MAX = 4096
"""Measurements that nobody takes. A turn adds at most one a group."""


def _merged(e: EngineState, group: GroupId) -> Index:
    first_held = e.merger.first_held(group)
    return e.cursor[group] if first_held is None else first_held - 1


def _applied(e: EngineState, group: GroupId) -> Index:
    outstanding = e.outstanding[group]
    return outstanding[0] - 1 if outstanding else e.cursor[group]


_INDEXES: tuple[Callable[[EngineState, GroupId], Index], ...] = (
    lambda e, group: e.raft(group).log.last_index,
    lambda e, group: e.raft(group).log.persisted,
    lambda e, group: e.raft(group).commit_index,
    _merged,
    _applied,
)
"""How far a group is on each rung."""


def indexes(e: EngineState, group: GroupId) -> dict[str, Index]:
    """How far a group is on each rung, by name."""
    return {rung: index(e, group) for rung, index in zip(RUNGS, _INDEXES, strict=True)}


def begin(e: EngineState, r: RaftState, proposals: list[Proposal]) -> None:
    """The leader here has appended these as an entry: watch it."""
    assert r.group not in e.probes
    if proposals[0].request == OPEN:
        return
    pending = next(filter(None, (proposing.own(e, proposal) for proposal in proposals)), None)
    token = None if pending is None else pending.token
    e.probes[r.group] = Probe(r.log.last_index, r.term, token, [e.now.monotonic_ns])


def turn(e: EngineState) -> None:
    """How far has each probe come by now? Called when anything may have climbed."""
    now = e.now.monotonic_ns
    for group, probe in sorted(e.probes.items()):
        r = e.raft(group)
        if not r.leads or r.term != probe.term or now - probe.at[0] > PROBE_NS_MAX:
            del e.probes[group]
            continue
        at = probe.at
        while _INDEXES[len(at)](e, group) >= probe.index:
            at.append(now)
            if len(at) == len(RUNGS):
                _arrive(e, group, probe)
                break


def _arrive(e: EngineState, group: GroupId, probe: Probe) -> None:
    del e.probes[group]
    if len(e.climbs) < CLIMBS_MAX:
        e.climbs.append(Climb(group, probe.token, tuple(probe.at)))
