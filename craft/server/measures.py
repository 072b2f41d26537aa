"""What a server counts and times, by name, unit and help."""

from __future__ import annotations

from craft.engine.state import EngineState
from craft.stats import Metrics

SECOND_NS = 1_000_000_000


class Measures:
    """Every metric of one server.

    The hot path adds to attributes, once a turn or call and never a command.
    """

    def __init__(self) -> None:
        m = self.metrics = Metrics()
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
            help="Commands proposed on this server and answered as applied.",
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
        self.reads = m.counter("craft_reads_total", unit="reads", help="Linearizable reads served.")
        self.remote_errors = m.counter(
            "craft_remote_errors_total", unit="errors", help="Frames of peers that broke the protocol."
        )
        self.clock_clamps = m.counter(
            "craft_clock_clamps_total",
            unit="stamps",
            help="Stamps for which this server's clock was clamped to a majority's clocks.",
        )

    def watch(self, e: EngineState) -> None:
        """Add what the engine counts itself; it is read when collected."""
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
