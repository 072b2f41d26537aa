"""Metrics: cheap to record, plain to collect, and honest about what a histogram knows."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.stats import QUANTILES, STEPS, Histogram, Metrics


def histogram(least: float = 1e-6, greatest: float = 100) -> Histogram:
    return Histogram("craft_x_seconds", unit="seconds", help="A test.", least=least, greatest=greatest)


def test_counters_and_gauges_are_collected_as_plain_values() -> None:
    """What is collected has name, type, unit, help, labels and value, and is JSON as it stands."""
    metrics = Metrics()
    applied = metrics.counter("craft_commands_applied_total", unit="commands", help="Applied here.")
    waiting = metrics.gauge("craft_waiting_bytes", unit="bytes", help="Waiting.", labels={"group": "1"})
    applied.value += 3
    applied.value += 2
    waiting.value = 7
    assert json.loads(json.dumps(metrics.collect())) == [
        {
            "name": "craft_commands_applied_total",
            "type": "counter",
            "unit": "commands",
            "help": "Applied here.",
            "labels": {},
            "value": 5,
        },
        {
            "name": "craft_waiting_bytes",
            "type": "gauge",
            "unit": "bytes",
            "help": "Waiting.",
            "labels": {"group": "1"},
            "value": 7,
        },
    ]


def test_a_number_that_is_counted_elsewhere_is_read_when_collected() -> None:
    """What the engine counts anyway is not counted twice."""
    queue: list[int] = []
    metrics = Metrics()
    metrics.gauge("craft_queue_length", unit="requests", help="Waiting.", read=lambda: len(queue))
    queue += [1, 2, 3]
    assert [metric["value"] for metric in metrics.collect()] == [3]


def test_what_is_unknown_is_left_out() -> None:
    """A made-up number would be drawn as a measurement."""
    known: list[float] = []
    metrics = Metrics()
    metrics.gauge(
        "craft_error_seconds", unit="seconds", help="Off.", read=lambda: known[0] if known else None
    )
    assert metrics.collect() == []
    known.append(0.5)
    assert [metric["value"] for metric in metrics.collect()] == [0.5]


def test_metrics_are_collected_by_name_and_labels() -> None:
    """The order does not depend on who was made first."""
    metrics = Metrics()
    for group in ("2", "1"):
        metrics.gauge("craft_term", unit="terms", help="Its term.", labels={"group": group})
    metrics.counter("craft_a_total", unit="things", help="Things.")
    assert [(metric["name"], metric["labels"]) for metric in metrics.collect()] == [
        ("craft_a_total", {}),
        ("craft_term", {"group": "1"}),
        ("craft_term", {"group": "2"}),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda metrics: metrics.counter("craft_x_total", unit="things", help="Things."),
        lambda metrics: metrics.counter("craft_x_total", unit="bytes", help="Things.", labels={"a": "b"}),
        lambda metrics: metrics.gauge("craft_x_total", unit="things", help="Things.", labels={"a": "b"}),
        lambda metrics: metrics.counter("craft_y", unit="things", help="No total."),
        lambda metrics: metrics.gauge("craft y", unit="things", help="No name."),
    ],
    ids=["twice", "another unit", "another type", "no total", "no name"],
)
def test_an_ambiguous_metric_is_our_own_mistake(make: Callable[[Metrics], object]) -> None:
    """One name means one thing; anything else is a bug of craft and fails at once."""
    metrics = Metrics()
    metrics.counter("craft_x_total", unit="things", help="Things.")
    with pytest.raises(AssertionError):
        make(metrics)
    assert len(metrics.collect()) == 1


def test_an_empty_histogram_says_that_it_knows_nothing() -> None:
    """No value, no quantile: None, not zero."""
    reading = histogram().reading()
    assert (reading["count"], reading["sum"], reading["min"], reading["max"]) == (0, 0, None, None)
    assert set(reading["quantiles"].values()) == {None}
    assert {below for _, below in reading["buckets"]} == {0}


def test_many_at_once_is_the_same_as_one_by_one() -> None:
    """A batch of n that took t is recorded in one step."""
    one, many = histogram(), histogram()
    for value, times in ((0.004, 1000), (0.001, 3), (2, 1), (0.5, 0)):
        many.record_many(value, times)
        for _ in range(times):
            one.record(value)
    assert one.reading() == {**many.reading(), "sum": pytest.approx(many.total)}
    assert many.count == 1004


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=200), st.sampled_from([0.0, *QUANTILES, 1.0]))
def test_a_quantile_is_estimated_within_its_bucket(values: list[float], share: float) -> None:
    """The estimate is off by at most half a bucket: 1 / (2 * STEPS) of the value."""
    subject = histogram()
    for value in values:
        subject.record(value)
    rank = max(1, -int(-share * len(values) // 1))
    exact = sorted(values)[rank - 1]
    assert subject.quantile(share) == pytest.approx(exact, rel=1 / (2 * STEPS) + 1e-9)


@given(st.lists(st.floats(0, 1e9), max_size=50))
def test_buckets_count_everything_once(values: list[float]) -> None:
    """Cumulative, rising, and in the end all: also what is smaller or greater than the scale."""
    subject = histogram(least=0.001, greatest=10)
    for value in values:
        subject.record(value)
    buckets = subject.reading()["buckets"]
    assert [edge for edge, _ in buckets] == [2.0**power for power in range(-9, 5)]
    assert [below for _, below in buckets[:-1]] == [sum(v < edge for v in values) for edge, _ in buckets[:-1]]
    assert buckets[-1][1] == len(values)


def test_a_value_below_zero_or_beyond_counting_is_our_own_mistake() -> None:
    """A negative duration is a bug of whoever measured it."""
    for value in (-1e-9, float("nan"), float("inf")):
        with pytest.raises(AssertionError):
            histogram().record(value)
