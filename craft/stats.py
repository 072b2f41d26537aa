"""Metrics as plain values, without dependencies: counters, gauges, histograms, and a group of them.

Floor 4, lowest step. Knows numbers and names; not what is counted, nor who reads it.

Invariants
- The hot path touches an attribute (`counter.value += n`) or a list's slot (`histogram.record_many(x, n)`):
  no locks, no lookups by name. Everything runs on the event loop's thread.
- A metric's name is in Prometheus' style, unit last: `craft_commands_applied_total`, `craft_turn_seconds`.
  One name has one type, unit and help; its metrics differ in their labels.
- A metric that is read when collected may be unknown (None) at that moment: then it is left out.
- `collect` returns only strings, numbers, lists and dicts: JSON, msgpack or an exporter can take it as it is.
"""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Labels: TypeAlias = Mapping[str, str]
Number: TypeAlias = int | float

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

QUANTILES = (0.5, 0.9, 0.99, 0.999)
"""Those that a histogram estimates when collected."""

STEPS = 8
"""Buckets for each doubling: a quantile's estimate is off by at most a sixteenth of itself."""


class Metric(abc.ABC):
    """What all metrics have: a name, a unit, a sentence of help, and labels."""

    kind = "untyped"

    def __init__(self, name: str, *, unit: str, help: str, labels: Labels | None = None) -> None:
        assert _NAME.fullmatch(name), f"{name!r} is no metric's name"
        self.name = name
        self.unit = unit
        self.help = help
        self.labels = dict(labels or {})

    def collect(self) -> dict[str, Any] | None:
        """Everything about it, as plain values; None while it is unknown."""
        reading = self.reading()
        if reading is None:
            return None
        head = {"name": self.name, "type": self.kind, "unit": self.unit, "help": self.help}
        return {**head, "labels": dict(self.labels), **reading}

    @abc.abstractmethod
    def reading(self) -> dict[str, Any] | None:
        """The values alone, if they are known."""


class Value(Metric):
    """One number: kept in `value` by whoever counts, or read when collected where it is counted already."""

    def __init__(
        self,
        name: str,
        *,
        unit: str,
        help: str,
        labels: Labels | None = None,
        read: Callable[[], Number | None] | None = None,
    ) -> None:
        super().__init__(name, unit=unit, help=help, labels=labels)
        self.value: Number = 0
        self._read = read

    def reading(self) -> dict[str, Any] | None:
        """The number as it stands."""
        if self._read is not None:
            found = self._read()
            if found is None:
                return None
            self.value = found
        return {"value": self.value}


class Counter(Value):
    """How often, or how much, since the process started. Only rises; its name ends in `_total`."""

    kind = "counter"


class Gauge(Value):
    """How much there is now."""

    kind = "gauge"


class Histogram(Metric):
    """How values are spread: counts in buckets of a logarithmic scale, `STEPS` a doubling.

    Values from `least` to `greatest` (both rounded to powers of two) are told apart; smaller ones fall in the
    first bucket, greater ones in the last. Recording costs the same for any value and any number of them.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        *,
        unit: str,
        help: str,
        least: Number = 1e-6,
        greatest: Number = 100,
        labels: Labels | None = None,
    ) -> None:
        super().__init__(name, unit=unit, help=help, labels=labels)
        assert 0 < least < greatest
        self._lowest = math.frexp(least)[1] - 1  # 2 ** _lowest <= least
        self._doublings = math.frexp(greatest)[1] - self._lowest
        self._buckets = [0] * (self._doublings * STEPS)
        self.count = 0
        self.total: Number = 0
        self.lowest_value: Number = math.inf
        self.highest_value: Number = -math.inf

    def record(self, value: Number) -> None:
        """One value; none is below zero."""
        self.record_many(value, 1)

    def record_many(self, value: Number, times: int) -> None:
        """One value, as if recorded `times` over."""
        if times == 0:
            return
        assert 0 <= value < math.inf and times > 0
        fraction, exponent = math.frexp(value)  # value = fraction * 2**exponent, 0.5 <= fraction < 1
        index = (exponent - 1 - self._lowest) * STEPS + int((fraction - 0.5) * 2 * STEPS)
        # Zero has the exponent 0, which would place it at one.
        if index < 0 or value == 0:
            index = 0
        elif index >= len(self._buckets):
            index = -1
        self._buckets[index] += times
        self.count += times
        self.total += value * times
        if value < self.lowest_value:  # noqa: PLR1730  # a comparison costs a third of a call
            self.lowest_value = value
        if value > self.highest_value:  # noqa: PLR1730
            self.highest_value = value

    def _edge(self, index: int) -> float:
        """The lower edge of a bucket, which is the upper edge of the one before."""
        doubling, step = divmod(index, STEPS)
        return math.ldexp(1 + step / STEPS, self._lowest + doubling)

    def quantile(self, share: float) -> float | None:
        """About the value below which this share lies (0 to 1); None while nothing is recorded."""
        assert 0 <= share <= 1
        rank = max(1, math.ceil(share * self.count))
        for index, count in enumerate(self._buckets):
            rank -= count
            if rank <= 0 and count:
                middle = (self._edge(index) + self._edge(index + 1)) / 2
                return float(min(max(middle, self.lowest_value), self.highest_value))
        return None

    def reading(self) -> dict[str, Any]:
        """Count, sum, extremes, quantiles, and `buckets`: how many were below each power of two.

        The last edge stands for all. Edges are the same each time, so that two readings can be subtracted.
        """
        below, buckets = 0, []
        for doubling in range(self._doublings):
            below += sum(self._buckets[doubling * STEPS : (doubling + 1) * STEPS])
            buckets.append([self._edge((doubling + 1) * STEPS), below])
        return {
            "count": self.count,
            "sum": self.total,
            "min": self.lowest_value if self.count else None,
            "max": self.highest_value if self.count else None,
            "quantiles": {str(share): self.quantile(share) for share in QUANTILES},
            "buckets": buckets,
        }


class Metrics:
    """All metrics of one server. Makes them, keeps names unambiguous, and collects them."""

    def __init__(self) -> None:
        self._metrics: dict[tuple[str, tuple[tuple[str, str], ...]], Metric] = {}
        self._meanings: dict[str, tuple[str, str, str]] = {}

    def counter(
        self,
        name: str,
        *,
        unit: str,
        help: str,
        labels: Labels | None = None,
        read: Callable[[], Number | None] | None = None,
    ) -> Counter:
        """A new counter; with `read`, one that is asked when collected."""
        assert name.endswith("_total"), f"{name}: a counter's name ends in _total"
        counter = Counter(name, unit=unit, help=help, labels=labels, read=read)
        self._add(counter)
        return counter

    def gauge(
        self,
        name: str,
        *,
        unit: str,
        help: str,
        labels: Labels | None = None,
        read: Callable[[], Number | None] | None = None,
    ) -> Gauge:
        """A new gauge; with `read`, one that is asked when collected."""
        gauge = Gauge(name, unit=unit, help=help, labels=labels, read=read)
        self._add(gauge)
        return gauge

    def histogram(
        self,
        name: str,
        *,
        unit: str,
        help: str,
        least: Number = 1e-6,
        greatest: Number = 100,
        labels: Labels | None = None,
    ) -> Histogram:
        """A new histogram that tells values from `least` to `greatest` apart."""
        histogram = Histogram(name, unit=unit, help=help, least=least, greatest=greatest, labels=labels)
        self._add(histogram)
        return histogram

    def _add(self, metric: Metric) -> None:
        key = (metric.name, tuple(sorted(metric.labels.items())))
        assert key not in self._metrics, f"{metric.name} {metric.labels} exists already"
        meaning = (metric.kind, metric.unit, metric.help)
        known = self._meanings.setdefault(metric.name, meaning)
        assert known == meaning, f"{metric.name} already means {known}, not {meaning}"
        self._metrics[key] = metric

    def collect(self) -> list[dict[str, Any]]:
        """Every metric that is known as plain values, by name and labels."""
        collected = (
            metric.collect() for _, metric in sorted(self._metrics.items(), key=lambda item: item[0])
        )
        return [values for values in collected if values is not None]
