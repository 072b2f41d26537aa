"""Metrics as Prometheus reads them.

Knows: craft's metrics, as plain values. Must not know: who asks.

Invariants:
- All samples of a metric stand together, behind its HELP and TYPE.
- Buckets are cumulative and end with +Inf, which is the count.

Reference: the text format 0.0.4, https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def text(metrics: Iterable[Mapping[str, Any]]) -> str:
    """All metrics."""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for metric in metrics:
        families.setdefault(metric["name"], []).append(metric)
    lines: list[str] = []
    for name, members in families.items():
        lines.append(f"# HELP {name} {help_of(members[0])}")
        lines.append(f"# TYPE {name} {members[0]['type']}")
        for metric in members:
            lines += samples(metric)
    return "".join(f"{line}\n" for line in lines)


def help_of(metric: Mapping[str, Any]) -> str:
    """What it counts, and in which unit."""
    what = f"{metric['help']} ({metric['unit']})"
    return what.replace("\\", "\\\\").replace("\n", "\\n")


def samples(metric: Mapping[str, Any]) -> Iterable[str]:
    """A metric's lines."""
    name, labels = metric["name"], metric["labels"]
    if metric["type"] != "histogram":
        yield f"{name}{labelled(labels)} {number(metric['value'])}"
        return
    for edge, below in metric["buckets"]:
        yield f"{name}_bucket{labelled({**labels, 'le': number(edge)})} {number(below)}"
    yield f"{name}_bucket{labelled({**labels, 'le': '+Inf'})} {number(metric['count'])}"
    yield f"{name}_sum{labelled(labels)} {number(metric['sum'])}"
    yield f"{name}_count{labelled(labels)} {number(metric['count'])}"


def labelled(labels: Mapping[str, Any]) -> str:
    """In braces; nothing where there are none."""
    inner = ",".join(f'{name}="{escaped(str(value))}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def escaped(value: str) -> str:
    """A label's value."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    """As Go's ParseFloat reads it."""
    if isinstance(value, int):
        return str(value)
    return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, repr(value))
