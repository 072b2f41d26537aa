"""From readings to figures. Pure: numbers in, numbers out.

A *measured* value is what `bench.member.Member.measure` answers: readings `before` and `after` the window.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Measured = dict[str, Any]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The least of the sorted `values` that at least this share of them does not exceed; None of none."""
    if not values:
        return None
    return values[max(0, math.ceil(share * len(values)) - 1)]


def load_latencies(files: Iterable[Path]) -> list[float]:
    """The latencies, in seconds and sorted, of all files together."""
    samples = array("d")
    for file in files:
        content = file.read_bytes()
        samples.frombytes(content)
    return sorted(samples)


def milliseconds(value: float | None) -> float | None:
    """Of seconds, rounded to a microsecond."""
    return None if value is None else round(value * 1000, 3)


def spent(measured: Measured, name: str) -> float:
    """By how much a reading grew in the window."""
    return float(measured["after"][name] - measured["before"][name])


def counted_since(measured: Measured, name: str) -> float:
    """By how much the load's own count grew in the window."""
    return float(measured["after"]["load"].get(name, 0) - measured["before"]["load"].get(name, 0))


def counted(measured: Measured, metric: str) -> float:
    """By how much a counter grew in the window, or by how many values a histogram."""
    before, after = measured["before"]["metrics"][metric], measured["after"]["metrics"][metric]
    return float(after["count"] - before["count"] if isinstance(after, dict) else after - before)


def written(measured: Measured, name: str = "write_bytes") -> int | None:
    """What the kernel counted in the window, or None where it does not."""
    before, after = measured["before"]["io"], measured["after"]["io"]
    return None if before is None or after is None else after[name] - before[name]


def mean(values: Sequence[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)


def ratio(part: float, whole: float, digits: int = 3) -> float | None:
    """`part / whole`, or None where there is nothing to relate it to."""
    return round(part / whole, digits) if whole else None


def server_figures(measured: Measured, command_bytes: int) -> dict[str, Any]:
    """One server's work in the window. Rates are a second; it applies the commands of all servers."""
    window = spent(measured, "at_s")
    metrics = measured["after"]["metrics"]
    payload = counted(measured, "craft_commands_applied_total") * command_bytes
    disk = written(measured)
    return {
        "window_s": round(window, 3),
        "answered_per_second": round(spent(measured, "answered") / window, 1),
        "applied_per_second": round(counted(measured, "craft_commands_applied_total") / window, 1),
        "cpu_seconds": round(spent(measured, "cpu_s"), 3),
        "cores": round(spent(measured, "cpu_s") / window, 3),
        "memory_mb_max": round(measured["after"]["memory_bytes_max"] / 1e6, 1),
        "turns_per_second": round(counted(measured, "craft_turns_total") / window, 1),
        "entries_per_second": round(counted(measured, "craft_entries_written_total") / window, 1),
        "frames_per_second": round(counted(measured, "craft_frames_sent_total") / window, 1),
        "syncs_per_second": round(counted(measured, "craft_sync_seconds") / window, 1),
        "sync_p50_ms": milliseconds(metrics["craft_sync_seconds"]["quantiles"]["0.5"]),
        "rungs_p50_ms": {rung: one["p50_ms"] for rung, one in measured["after"]["rungs"].items()},
        "turn_p999_ms": milliseconds(metrics["craft_turn_seconds"]["quantiles"]["0.999"]),
        "log_bytes_per_payload_byte": ratio(counted(measured, "craft_written_bytes_total"), payload),
        "disk_bytes_per_payload_byte": None if disk is None else ratio(disk, payload),
        "groups_led": measured["after"]["led"],
        "elections": int(spent(measured, "terms")),
    }


def cluster_figures(
    measured: Sequence[Measured], latencies: Sequence[float], command_bytes: int
) -> dict[str, Any]:
    """All servers together. A command is counted once: where its caller was answered."""
    servers = [
        {"server_id": number, **server_figures(one, command_bytes)}
        for number, one in enumerate(measured, start=1)
    ]

    def over_servers(name: str) -> float | None:
        values = [server[name] for server in servers if server[name] is not None]
        return round(mean(values), 3) if values else None

    return {
        "applied_per_second": round(sum(spent(one, "answered") / spent(one, "at_s") for one in measured), 1),
        "p50_ms": milliseconds(percentile(latencies, 0.5)),
        "p99_ms": milliseconds(percentile(latencies, 0.99)),
        "p999_ms": milliseconds(percentile(latencies, 0.999)),
        "calls": len(latencies),
        "cpu_seconds_per_server": over_servers("cpu_seconds"),
        "cores_per_server": over_servers("cores"),
        "memory_mb_max": max(server["memory_mb_max"] for server in servers),
        "turns_per_second": over_servers("turns_per_second"),
        "entries_per_second": over_servers("entries_per_second"),
        "frames_per_second": over_servers("frames_per_second"),
        "syncs_per_second": over_servers("syncs_per_second"),
        "sync_p50_ms": over_servers("sync_p50_ms"),
        "turn_p999_ms": max((server["turn_p999_ms"] or 0.0) for server in servers),
        "log_bytes_per_payload_byte": over_servers("log_bytes_per_payload_byte"),
        "disk_bytes_per_payload_byte": over_servers("disk_bytes_per_payload_byte"),
        "wire_bytes_per_payload_byte": _wire(measured, command_bytes),
        "elections": max(server["elections"] for server in servers),
        "servers": servers,
    }


def _wire(measured: Sequence[Measured], command_bytes: int) -> float | None:
    """Bytes received over payload bytes that had to travel: each command once to every server but its own."""
    payload = sum(spent(one, "answered") for one in measured) * command_bytes * (len(measured) - 1)
    return ratio(sum(counted(one, "craft_received_bytes_total") for one in measured), payload)
