"""What a server counts and times, by name, unit and help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from craft.applying import Applier
from craft.clock import Clock
from craft.engine.rungs import RUNGS
from craft.engine.state import Climb, EngineState
from craft.server.inbox import ServerInbox
from craft.stats import Histogram, Metrics
from craft.types import Instant, ServerId, Write

SECOND_NS = 1_000_000_000


class Measures:
    """Every metric of one server.

    The hot path adds to attributes, once a turn or call and never a command.
    """

    def __init__(self) -> None:
        m = self.metrics = Metrics()
        self._watch_peers: Callable[[], None] = lambda: None
        self.turns = m.counter("craft_turns_total", unit="turns", help="Turns of the engine.")
        self.turn_seconds = m.histogram(
            "craft_turn_seconds",
            unit="seconds",
            help="How long one turn held the event loop, applying included.",
        )
        self.sync_seconds = m.histogram(
            "craft_sync_seconds", unit="seconds", help="How long one sync of the log took, in its thread."
        )
        self.writes = m.counter(
            "craft_writes_total", unit="writes", help="Batches written to storage and synced."
        )
        self.entries = m.counter(
            "craft_entries_written_total",
            unit="entries",
            help="Log entries written, of all groups, empty ones too.",
        )
        self.written_bytes = m.counter(
            "craft_written_bytes_total", unit="bytes", help="Bytes of log entries written to storage."
        )
        self.frames_sent = m.counter("craft_frames_sent_total", unit="frames", help="Frames sent to peers.")
        self.frames_received = m.counter(
            "craft_frames_received_total", unit="frames", help="Frames received from peers."
        )
        self.received_bytes = m.counter(
            "craft_received_bytes_total", unit="bytes", help="Bytes of frames received from peers."
        )
        self.commands_applied = m.counter(
            "craft_commands_applied_total", unit="commands", help="Commands applied, whoever proposed them."
        )
        self.entries_merged = m.counter(
            "craft_entries_merged_total", unit="entries", help="Command entries merged and applied."
        )
        self.propose_seconds = m.histogram(
            "craft_propose_seconds",
            unit="seconds",
            help="From propose to its answer, for commands proposed on this server.",
        )
        self.commands_answered = m.counter(
            "craft_commands_answered_total",
            unit="commands",
            help="Commands proposed on this server and answered as what their callers wanted.",
        )
        self.rejected = m.counter(
            "craft_requests_rejected_total",
            unit="requests",
            help="Requests of this server certainly without effect.",
        )
        self.unknown = m.counter(
            "craft_requests_unknown_total",
            unit="requests",
            help="Requests of this server whose fate is unknown.",
        )
        self.reads = m.counter("craft_reads_total", unit="reads", help="Reads served.")
        self.remote_errors = m.counter(
            "craft_remote_errors_total", unit="errors", help="Frames of peers that broke the protocol."
        )
        self._make_rungs()

    def _make_rungs(self) -> None:
        self.rung_seconds = [
            self.metrics.histogram(
                "craft_rung_seconds",
                unit="seconds",
                help="How long a command entry led here took to this rung, from the one below.",
                labels={"rung": rung},
            )
            for rung in RUNGS
        ]
        self.climb_seconds = self.metrics.histogram(
            "craft_climb_seconds",
            unit="seconds",
            help="From propose to applied, for the same entries: all rungs together.",
        )

    def collect(self, inbox: ServerInbox, applier: Applier) -> list[dict[str, Any]]:
        """Every metric as plain values, with what the inbox and the applier count themselves."""
        self.frames_received.value = inbox.frames_total
        self.received_bytes.value = inbox.bytes_total
        self.commands_applied.value = applier.commands_total
        self.entries_merged.value = applier.entries_total
        self._watch_peers()
        return self.metrics.collect()

    def take_turn(self, seconds: float, e: EngineState) -> None:
        """A turn of the engine has been carried out; it held the event loop for so long."""
        self.turns.value += 1
        self.turn_seconds.record(seconds)
        if e.climbs:
            climbs, e.climbs = e.climbs, []
            for climb in climbs:
                self._take_climb(climb)

    def take_write(self, write: Write) -> None:
        """A turn's write is on its way to the disk."""
        self.writes.value += 1
        for append in write.appends:
            self.entries.value += len(append.entries)
            self.written_bytes.value += sum(len(entry.record) for entry in append.entries)

    def _take_climb(self, climb: Climb) -> None:
        appended, *above = self.rung_seconds
        for histogram, before, after in zip(above, climb.at, climb.at[1:], strict=False):
            histogram.record((after - before) / SECOND_NS)
        if climb.token is not None:  # else another server knows since when its callers wait
            started = climb.token.started
            appended.record(max(0.0, climb.at[0] / SECOND_NS - started))
            self.climb_seconds.record(max(0.0, climb.at[-1] / SECOND_NS - started))

    def rungs(self) -> dict[str, Any]:
        """Where the time goes, as status shows it: since the start, for each rung and all together."""
        named = zip((*RUNGS, "total"), (*self.rung_seconds, self.climb_seconds), strict=True)
        return {name: _in_short(histogram) for name, histogram in named}

    def watch(self, e: EngineState) -> None:
        """Add what the engine counts itself; it is read when collected."""
        self.metrics.counter(
            "craft_clock_clamps_total",
            unit="stamps",
            help="Stamps for which this server's clock was clamped to a majority's clocks.",
            read=lambda: e.clamps,
        )
        gauge = self.metrics.gauge
        gauge(
            "craft_applied_position",
            unit="entries",
            help="Position applied.",
            read=lambda: e.applied_position,
        )
        gauge(
            "craft_unmerged_bytes",
            unit="bytes",
            help="Committed and not merged.",
            read=lambda: e.merger.bytes,
        )
        gauge(
            "craft_pending_bytes",
            unit="bytes",
            help="Proposed and not answered.",
            read=lambda: e.pending_bytes,
        )
        gauge(
            "craft_suspect_groups",
            unit="groups",
            help="Groups in which this server may have lost a synced tail, and counts for nothing.",
            read=lambda: sum(raft.state.suspect for raft in e.replicas),
        )
        gauge("craft_groups_led", unit="groups", help="Groups led by this server.", read=lambda: len(e.led))
        gauge(
            "craft_blocking_group",
            unit="group",
            help="The group for which the merge waits; -1: none.",
            read=lambda: e.merger.blocking if e.merger.bytes else -1,
        )
        gauge(
            "craft_merge_lag_seconds",
            unit="seconds",
            help="Greatest timestamp appended less the safe timestamp, while something waits.",
            read=lambda: (e.greatest_timestamp - e.merger.safe) / SECOND_NS if e.merger.bytes else 0,
        )

    def watch_clocks(self, e: EngineState, clock: Clock, now: Callable[[], Instant]) -> None:
        """Add what the clock says of itself, and what is seen of the peers' clocks."""

        def error() -> float | None:
            stated = clock.error()
            return None if stated is None else stated / SECOND_NS

        self.metrics.gauge(
            "craft_clock_error_seconds",
            unit="seconds",
            help="How far this server's clock may be off by its own word; absent: unknown.",
            read=error,
        )
        watched: set[ServerId] = set()

        def watch_peers() -> None:
            for peer in e.peers.keys() - watched:  # peers come and go
                watched.add(peer)
                self._watch_clock(e, peer, now)

        self._watch_peers = watch_peers

    def _watch_clock(self, e: EngineState, peer: ServerId, now: Callable[[], Instant]) -> None:
        def seen(field: str) -> Callable[[], float | None]:
            def read() -> float | None:
                estimate = e.offsets.estimates(now()).get(peer)
                return None if estimate is None else float(getattr(estimate, field)) / SECOND_NS

            return read

        for name, field, help_ in (
            ("craft_clock_offset_seconds", "offset_ns", "The peer's clock less this server's."),
            ("craft_clock_offset_error_seconds", "error_ns", "How far that may be off, either way."),
            ("craft_one_way_delay_seconds", "delay_ns", "Half of the least round trip to the peer, of late."),
        ):
            labels = {"peer": str(peer)}
            self.metrics.gauge(name, unit="seconds", help=help_, labels=labels, read=seen(field))


def _in_short(histogram: Histogram) -> dict[str, Any]:
    """How many values, their median, and what one of a hundred exceeds."""

    def ms(share: float) -> float | None:
        seconds = histogram.quantile(share)
        return None if seconds is None else round(seconds * 1000, 3)

    return {"count": histogram.count, "p50_ms": ms(0.5), "p99_ms": ms(0.99)}
