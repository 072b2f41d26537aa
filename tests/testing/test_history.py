"""The record of what clients saw: it grows, and says each outcome once."""

from __future__ import annotations

import pytest

from craft.testing.history import History, Outcome


def test_operations_are_numbered_as_they_are_invoked() -> None:
    """Numbers rise from 1, and an operation is found by its number."""
    history = History()
    first = history.invoke(7, 1, "write", [b"a", b"b"], at=10)
    second = history.invoke(8, 2, "read", (b"q",), at=10)
    assert [operation.number for operation in history] == [1, 2]
    assert history[1] is first and history[2] is second and len(history) == 2
    assert first.requests == (b"a", b"b") and first.outcome is Outcome.OPEN and first.returned is None
    with pytest.raises(KeyError, match="there are 1 to 2"):
        history[3]


def test_each_outcome_is_recorded_with_its_time() -> None:
    """An answer brings results and a position; a refusal and a lost answer only the time."""
    history = History()
    answered, refused, lost = (history.invoke(1, 1, "write", [b"c"], at=at) for at in (0, 1, 2))
    history.ok(answered, [5], 3, at=4)
    history.reject(refused, at=5)
    history.unknown(lost, at=6)
    assert (answered.outcome, answered.results, answered.position) == (Outcome.OK, [5], 3)
    assert (refused.outcome, refused.returned) == (Outcome.REJECTED, 5)
    assert (lost.outcome, lost.returned) == (Outcome.UNKNOWN, 6)


def test_an_outcome_is_told_once() -> None:
    """Who was told that nobody knows is not told otherwise later."""
    history = History()
    operation = history.invoke(1, 1, "write", [b"c"], at=0)
    history.unknown(operation, at=1)
    with pytest.raises(ValueError, match="is told ok but is unknown already"):
        history.ok(operation, None, 1, at=2)
    assert operation.outcome is Outcome.UNKNOWN and operation.position is None


def test_time_does_not_go_back() -> None:
    """Neither between invocations nor inside an operation."""
    history = History()
    operation = history.invoke(1, 1, "write", [b"c"], at=5)
    with pytest.raises(ValueError, match="invoked at 4 ns"):
        history.invoke(1, 1, "write", [b"c"], at=4)
    with pytest.raises(ValueError, match="returned at 4 ns"):
        history.reject(operation, at=4)
    assert len(history) == 1 and operation.outcome is Outcome.OPEN


def test_there_is_one_result_a_request_or_none_at_all() -> None:
    """A write of two commands has two results."""
    history = History()
    operation = history.invoke(1, 1, "write", [b"c", b"d"], at=0)
    with pytest.raises(ValueError, match="has 1 results"):
        history.ok(operation, [1], 1, at=1)
    history.ok(operation, None, 1, at=1)
    assert operation.outcome is Outcome.OK


def test_an_operation_is_a_write_or_a_read() -> None:
    """Anything else is refused by name."""
    with pytest.raises(ValueError, match="kind is 'delete'"):
        History().invoke(1, 1, "delete", [b"c"], at=0)  # type: ignore[arg-type]
