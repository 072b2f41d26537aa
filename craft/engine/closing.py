"""Closing on demand: at which timestamp the groups are asked to close, and how soon (PROTOCOL 3).

Knows: what is appended here, and what peers demand. Must not know: how a leader closes a group (`leading`).

Invariants
- Every command entry that is appended here and not merged becomes demand: at once where its leader says so
  on the frame that brings it or somebody here waits, else PATIENCE_MS later. So none is left for ever, and
  whoever is answered without the merge (level `committed`) does not pay for it.
- The demand is forgotten once the merge has reached it.
"""

from __future__ import annotations

from craft.engine.state import MS, EngineState
from craft.marks import mark
from craft.raft import RaftState
from craft.types import Timestamp

PATIENCE_MS = 5
"""So long may a command wait for its merge for which nobody is known to wait.

Its merge costs each other leader an entry, and every server the frames: a fifth of what a client waits that
only waits for its commit. What reads, or applies, meanwhile, is behind by so much at most.
"""


def note_appended(e: EngineState, r: RaftState) -> None:
    """Entries have been appended to a log here, by us or by a leader: they may create demand."""
    e.greatest_timestamp = max(e.greatest_timestamp, r.log.last_timestamp)
    timestamp = r.log.last_command_timestamp
    e.greatest_command_timestamp = max(e.greatest_command_timestamp, timestamp)
    if timestamp > e.led_command_timestamp and r.leads:
        e.led_command_timestamp = timestamp
    if timestamp > e.demand and timestamp > e.unhurried and timestamp > e.merger.safe:
        if not e.unhurried:
            e.hurry_at = e.now.monotonic_ns + PATIENCE_MS * MS
            e.wake_at = min(e.wake_at, e.hurry_at)
        e.unhurried = timestamp


def hurry(e: EngineState) -> None:
    """Somebody waits for the merge of what is appended here."""
    demand(e, e.unhurried)


def demand(e: EngineState, timestamp: Timestamp) -> None:
    """Somebody, here or at a peer, waits for the merge up to this timestamp."""
    if timestamp > e.demand and timestamp > e.merger.safe:
        e.demand = timestamp
    if e.unhurried <= e.demand:
        e.unhurried = 0


def turn(e: EngineState) -> None:
    """Has nobody waited for long enough, or does somebody now?"""
    if not e.unhurried:
        return
    if e.unhurried <= e.merger.safe:
        e.unhurried = 0
    elif e.reads.completed or e.session_reads or e.now.monotonic_ns >= e.hurry_at:
        mark("merge asked for later than its commands")
        hurry(e)
        for peer in e.peers.values():
            peer.frame_due = True  # their leaders did not hear of it with the commands
    else:
        e.wake_at = min(e.wake_at, e.hurry_at)
