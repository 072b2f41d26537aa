"""The judge of histories: stories of the literature, and a slow twin that tries every order."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft.testing.history import Kind, Operation, Outcome
from craft.testing.linearizability import UNKNOWN_RESULT, Model, Result, Verdict, check
from craft.testing.workloads import CounterModel, ListModel, RegisterModel, encode

LINEARIZABLE, VIOLATED, GAVE_UP = Verdict.LINEARIZABLE, Verdict.VIOLATED, Verdict.GAVE_UP
REGISTER, COUNTER, LIST = RegisterModel(), CounterModel(), ListModel()
X, Y, Z = 1, 2, 3


def operation(
    number: int,
    invoked: int,
    returned: int | None,
    *requests: tuple[bytes, Any],
    outcome: Outcome = Outcome.OK,
) -> Operation:
    """What is asked is a read where its first request is a query."""
    kind: Kind = "read" if b"get" in requests[0][0] else "write"
    asked = tuple(request for request, _ in requests)
    results = [result for _, result in requests] if outcome is Outcome.OK else None
    if results is not None and all(result is None for result in results):
        results = None
    return Operation(number, number, 1, kind, asked, invoked, returned, outcome, results)


def set_(key: int, value: int, before: int | None = None) -> tuple[bytes, int | None]:
    """A write to a register; the value before it is the answer, if there is one."""
    return encode("set", key, value), before


def cas(key: int, expected: int, value: int, before: int | None = None) -> tuple[bytes, int | None]:
    return encode("cas", key, expected, value), before


def get(key: int, result: Any) -> tuple[bytes, Any]:
    return encode("get", key), result


def add(key: int, result: int | None = None) -> tuple[bytes, int | None]:
    return encode("add", key, 1), result


def append(key: int, value: int, *after: int) -> tuple[bytes, list[int] | None]:
    return encode("append", key, value), list(after) or None


Line = tuple[Any, ...]
"""invoked, returned (None: unknown), requests…"""


def history(*lines: Line) -> list[Operation]:
    made = []
    for number, (invoked, returned, *requests) in enumerate(lines, start=1):
        outcome = Outcome.UNKNOWN if returned is None else Outcome.OK
        made.append(operation(number, invoked, returned, *requests, outcome=outcome))
    return made


def verdict(model: Model, *lines: Line) -> Verdict:
    return check(history(*lines), model).verdict


# -- one register ----------------------------------------------------------------------------------


def test_nothing_happened() -> None:
    """An empty history has an order."""
    assert check([], REGISTER) == Result(LINEARIZABLE, 0, 0)


def test_one_after_the_other_is_read_back() -> None:
    """Without concurrency there is one order, and it must fit."""
    assert verdict(REGISTER, (0, 1, set_(X, 5)), (2, 3, get(X, 5))) is LINEARIZABLE
    assert verdict(REGISTER, (0, 1, set_(X, 5)), (2, 3, get(X, 0))) is VIOLATED


def test_concurrent_operations_may_go_either_way() -> None:
    """A read during a write sees the value before or after."""
    for value in (0, 5):
        assert verdict(REGISTER, (0, 9, set_(X, 5)), (1, 2, get(X, value))) is LINEARIZABLE


def test_a_stale_read_is_a_violation() -> None:
    """Once a read saw the new value, no later read sees the old one, though the write still runs."""
    write = (0, 9, set_(X, 5))
    assert verdict(REGISTER, write, (1, 2, get(X, 5)), (3, 4, get(X, 0))) is VIOLATED
    assert verdict(REGISTER, write, (1, 2, get(X, 0)), (3, 4, get(X, 5))) is LINEARIZABLE
    assert verdict(REGISTER, write, (1, 4, get(X, 5)), (3, 6, get(X, 0))) is LINEARIZABLE


def test_the_same_instant_is_concurrent() -> None:
    """Returned at 2 and invoked at 2: either may come first. Invoked at 3 is later."""
    assert verdict(REGISTER, (0, 2, set_(X, 5)), (2, 3, get(X, 0))) is LINEARIZABLE
    assert verdict(REGISTER, (0, 2, set_(X, 5)), (3, 4, get(X, 0))) is VIOLATED


def test_a_lost_update_is_a_violation() -> None:
    """Two compare-and-sets cannot both have found the same value."""
    assert verdict(REGISTER, (0, 9, cas(X, 0, 5, 0)), (0, 9, cas(X, 0, 6, 5))) is LINEARIZABLE
    assert verdict(REGISTER, (0, 9, cas(X, 0, 5, 0)), (0, 9, cas(X, 0, 6, 0))) is VIOLATED


def test_a_failed_compare_and_set_changes_nothing() -> None:
    """It answers what it found."""
    lines = (0, 1, set_(X, 5)), (2, 3, cas(X, 4, 6, 5))
    assert verdict(REGISTER, *lines, (4, 5, get(X, 5))) is LINEARIZABLE
    assert verdict(REGISTER, *lines, (4, 5, get(X, 6))) is VIOLATED


def test_a_value_that_nobody_wrote_is_a_violation() -> None:
    """Neither before nor after any write was it there."""
    assert verdict(REGISTER, (0, 9, set_(X, 5)), (1, 2, get(X, 7))) is VIOLATED


def test_a_write_that_changes_nothing_here_may_be_needed_later() -> None:
    """Writing the value that is there must not be taken at once: another write may come between."""
    lines = (0, 1, set_(X, 5)), (2, 9, set_(X, 5)), (2, 9, set_(X, 3)), (10, 11, get(X, 5))
    assert verdict(REGISTER, *lines) is LINEARIZABLE


def test_the_history_of_the_porcupine_readme() -> None:
    """Three clients: a write of 100, reads of 100 and then 0 while it runs."""
    write, late = (0, 100, set_(X, 100)), (35, 75, get(X, 0))
    assert verdict(REGISTER, write, (25, 75, get(X, 100)), (30, 60, get(X, 0))) is LINEARIZABLE
    assert verdict(REGISTER, (0, 100, set_(X, 200)), (10, 30, get(X, 200)), (40, 90, get(X, 0))) is VIOLATED
    assert verdict(REGISTER, write, late) is LINEARIZABLE


def test_the_queue_of_concurrent_writers_keeps_one_order_for_all() -> None:
    """Two readers may not see two concurrent writes in two orders."""
    writes = (0, 1, set_(X, 0)), (2, 20, set_(X, 5)), (2, 20, set_(X, 6))
    one = (3, 4, get(X, 5)), (5, 6, get(X, 6))
    assert verdict(REGISTER, *writes, *one, (7, 8, get(X, 6))) is LINEARIZABLE
    assert verdict(REGISTER, *writes, *one, (7, 8, get(X, 5))) is VIOLATED


# -- unknown, open, rejected -----------------------------------------------------------------------


def test_an_unknown_write_may_take_effect_late_or_never() -> None:
    """Long after the client gave up, its value may appear; or it never does."""
    unknown = (0, None, set_(X, 5))
    assert verdict(REGISTER, unknown, (10, 11, get(X, 0)), (20, 21, get(X, 5))) is LINEARIZABLE
    assert verdict(REGISTER, unknown, (10, 11, get(X, 0)), (20, 21, get(X, 0))) is LINEARIZABLE


def test_an_unknown_write_does_not_vanish() -> None:
    """Seen once, it stays until something else is written; and it takes effect once."""
    unknown, seen = (0, None, set_(X, 5)), (10, 11, get(X, 5))
    assert verdict(REGISTER, unknown, seen, (20, 21, get(X, 0))) is VIOLATED
    lines = unknown, seen, (20, 21, set_(X, 6)), (30, 31, get(X, 6))
    assert verdict(REGISTER, *lines) is LINEARIZABLE
    assert verdict(REGISTER, *lines, (40, 41, get(X, 5))) is VIOLATED


def test_an_unknown_write_has_no_effect_before_it_was_asked() -> None:
    """A read that returned earlier cannot have seen it."""
    assert verdict(REGISTER, (2, None, set_(X, 5)), (0, 1, get(X, 5))) is VIOLATED
    assert verdict(REGISTER, (1, None, set_(X, 5)), (0, 1, get(X, 5))) is LINEARIZABLE


def test_an_open_write_is_as_an_unknown_one() -> None:
    """The run ended before its client was told anything."""
    write = operation(1, 0, None, set_(X, 5), outcome=Outcome.OPEN)
    for value in (0, 5):
        assert check([write, operation(2, 5, 6, get(X, value))], REGISTER).verdict is LINEARIZABLE


def test_an_unknown_compare_and_set_has_an_effect_where_it_can() -> None:
    """It waits, as it were, for the value that it expects; but not where nobody wrote that."""
    unknown = (0, None, cas(X, 5, 6))
    assert verdict(REGISTER, unknown, (1, 2, set_(X, 5)), (3, 4, get(X, 6))) is LINEARIZABLE
    assert verdict(REGISTER, unknown, (1, 2, set_(X, 4)), (3, 4, get(X, 6))) is VIOLATED


def test_a_rejected_write_never_takes_effect() -> None:
    """Where its value is read all the same, the rejection was a lie."""
    write = operation(1, 0, 1, set_(X, 5), outcome=Outcome.REJECTED)
    assert check([write, operation(2, 5, 6, get(X, 0))], REGISTER).verdict is LINEARIZABLE
    assert check([write, operation(2, 5, 6, get(X, 5))], REGISTER).verdict is VIOLATED


@pytest.mark.parametrize("outcome", [Outcome.OPEN, Outcome.REJECTED, Outcome.UNKNOWN])
def test_a_read_without_an_answer_says_nothing(outcome: Outcome) -> None:
    """It is left out."""
    assert check([operation(1, 0, None, get(X, 9), outcome=outcome)], REGISTER) == Result(LINEARIZABLE, 0, 0)


def test_an_answer_without_a_result_still_says_that_it_happened() -> None:
    """And until when."""
    assert verdict(COUNTER, (0, 1, add(X)), (2, 3, get(X, 1))) is LINEARIZABLE
    assert verdict(COUNTER, (0, 1, add(X)), (2, 3, get(X, 0))) is VIOLATED


def test_what_failed_with_one_unknown_write_may_succeed_with_another() -> None:
    """The same value came from a write that is needed again later, or from one that is not."""
    lines = (2, 3, get(X, 5)), (4, 5, set_(X, 6)), (6, 7, get(X, 5))
    assert verdict(REGISTER, (0, None, set_(X, 5)), (1, None, cas(X, 0, 5)), *lines) is LINEARIZABLE


def test_what_failed_with_two_unknown_writes_may_succeed_with_one() -> None:
    """The other is still to come."""
    unknown = (0, None, set_(X, 6)), (0, None, set_(X, 5))
    assert verdict(REGISTER, *unknown, (1, 2, get(X, 5)), (3, 4, get(X, 6))) is LINEARIZABLE


def test_unknown_writes_are_alike_only_as_a_whole() -> None:
    """Of two that begin alike, the second may have taken effect without the first."""
    unknown = (0, None, append(X, 5), append(Y, 1)), (0, None, append(X, 5), append(Y, 2))
    assert verdict(LIST, *unknown, (1, 2, get(X, [5]), get(Y, [2]))) is LINEARIZABLE


def test_no_state_is_looked_at_twice() -> None:
    """Eight concurrent writes have 40320 orders, but fewer than 8 * 2**8 sets with a last write."""
    writes = [(0, 9, set_(X, value)) for value in range(1, 9)]
    result = check(history(*writes, (10, 11, get(X, 9))), REGISTER)
    assert result.verdict is VIOLATED and result.states < 8 * 2**8


# -- counters and lists ----------------------------------------------------------------------------


def test_a_double_effect_is_a_violation() -> None:
    """One addition, counted twice."""
    assert verdict(COUNTER, (0, 1, add(X, 1)), (2, 3, get(X, 2))) is VIOLATED
    assert verdict(COUNTER, (0, 1, add(X, 2))) is VIOLATED
    assert verdict(COUNTER, (0, None, add(X)), (1, 2, add(X, 3))) is VIOLATED


def test_a_lost_addition_is_a_violation() -> None:
    """Two additions cannot both have made it 1."""
    assert verdict(COUNTER, (0, 9, add(X, 1)), (0, 9, add(X, 2))) is LINEARIZABLE
    assert verdict(COUNTER, (0, 9, add(X, 1)), (0, 9, add(X, 1))) is VIOLATED


def test_of_many_alike_unknown_additions_any_number_took_effect() -> None:
    """Which ones does not matter, so the search does not try them all."""
    unknown = [(at, None, add(X)) for at in range(40)]
    for count, expected in ((0, LINEARIZABLE), (17, LINEARIZABLE), (40, LINEARIZABLE), (41, VIOLATED)):
        result = check(history(*unknown, (100, 101, get(X, count))), COUNTER)
        assert result.verdict is expected and result.states <= 41


def test_of_unknown_twins_only_those_already_asked_count() -> None:
    """Two were asked by then, the third not."""
    lines = [(0, None, add(X)), (1, None, add(X)), (5, None, add(X))]
    assert verdict(COUNTER, *lines, (2, 3, get(X, 2))) is LINEARIZABLE
    assert verdict(COUNTER, *lines, (2, 3, get(X, 3))) is VIOLATED


def test_a_list_shows_the_order() -> None:
    """Two readers may not see two orders, nor may what an append answered be another."""
    writes = (0, 9, append(X, 5)), (0, 9, append(X, 6))
    assert verdict(LIST, *writes, (10, 11, get(X, [6, 5]))) is LINEARIZABLE
    assert verdict(LIST, *writes, (10, 11, get(X, [6, 5])), (12, 13, get(X, [5, 6]))) is VIOLATED
    assert verdict(LIST, *writes, (10, 11, get(X, [5]))) is VIOLATED
    assert (
        verdict(LIST, (0, 9, append(X, 5, 6, 5)), (0, 9, append(X, 6, 6)), (5, 6, get(X, [6])))
        is LINEARIZABLE
    )
    assert verdict(LIST, (0, 9, append(X, 5, 6, 5)), (0, 9, append(X, 6, 6)), (5, 6, get(X, [5]))) is VIOLATED


# -- several keys ----------------------------------------------------------------------------------


def test_keys_that_nothing_joins_are_checked_apart() -> None:
    """Two parts; what is wrong in one is found whatever the other says."""
    lines = (0, 1, set_(X, 5)), (0, 1, set_(Y, 6)), (2, 3, get(X, 5)), (2, 3, get(Y, 6))
    result = check(history(*lines), REGISTER)
    assert result.verdict is LINEARIZABLE and result.parts == 2
    result = check(history(*lines, (4, 5, get(Y, 0))), REGISTER)
    assert result.verdict is VIOLATED and result.explanation is not None
    assert result.explanation.keys == (Y,)


def test_a_write_of_several_keys_takes_effect_at_one_point() -> None:
    """Reads of single keys may not see its parts at different times; each key alone would look right."""
    both = (0, 20, set_(X, 5), set_(Y, 6))
    assert verdict(REGISTER, both, (1, 2, get(X, 5)), (3, 4, get(Y, 6))) is LINEARIZABLE
    assert verdict(REGISTER, both, (1, 2, get(X, 5)), (3, 4, get(Y, 0))) is VIOLATED
    assert verdict(REGISTER, both, (1, 2, get(X, 5), get(Y, 0))) is VIOLATED


def test_a_read_of_several_keys_is_of_one_state() -> None:
    """Two snapshots may not disagree about the order of two writes."""
    writes = (0, 20, set_(X, 5)), (0, 20, set_(Y, 6))
    one, other = (1, 19, get(X, 5), get(Y, 0)), (1, 19, get(X, 0), get(Y, 6))
    assert verdict(REGISTER, *writes, one) is LINEARIZABLE
    assert verdict(REGISTER, *writes, other) is LINEARIZABLE
    assert verdict(REGISTER, *writes, one, other) is VIOLATED


def test_commands_of_a_write_take_effect_in_order() -> None:
    """Also on the same key."""
    assert verdict(REGISTER, (0, 1, set_(X, 5, 0), cas(X, 5, 6, 5)), (2, 3, get(X, 6))) is LINEARIZABLE
    assert verdict(REGISTER, (0, 1, cas(X, 5, 6, 5), set_(X, 5, 0))) is VIOLATED


def test_keys_are_joined_through_others() -> None:
    """X with Y and Y with Z: one part, even where the operation that joins them was never answered."""
    lines: tuple[Line, ...] = ((0, None, set_(X, 5), set_(Y, 5)), (0, None, set_(Y, 6), set_(Z, 6)))
    lines += ((1, 2, get(X, 5)), (3, 4, get(Z, 6)), (5, 6, get(Y, 6)))
    result = check(history(*lines), REGISTER)
    assert result.verdict is LINEARIZABLE and result.parts == 1
    assert verdict(REGISTER, *lines[:-1], (5, 6, get(Y, 0))) is VIOLATED


# -- limits and explanations -----------------------------------------------------------------------


def hard(unknown: int) -> list[Operation]:
    """Unknown writes that all matter, and an answer that none of them explains."""
    lines = [(at, None, append(X, at)) for at in range(unknown)]
    return history(*lines, (100, 101, append(X, 99, 50, 99)))


def test_too_many_states_end_the_search_without_a_verdict() -> None:
    """The limit is named, with the keys that met it; other parts are judged all the same."""
    result = check(hard(10), LIST, states_max=1000)
    assert result.verdict is GAVE_UP and result.explanation is None and result.states == 1000
    assert "keys 1 with 11 operations, 10 of them unknown" in str(result)
    assert "states_max = 1000" in result.gave_up
    wrong = operation(12, 0, 1, get(Y, [7]))
    result = check([*hard(10), wrong], LIST, states_max=1000)
    assert result.verdict is VIOLATED and result.gave_up and result.explanation is not None
    assert result.explanation.culprit is wrong


def test_what_is_too_much_together_may_be_wrong_for_one_key() -> None:
    """The key alone is tried before giving up."""
    joining = operation(12, 0, None, append(X, 77), append(Y, 78), outcome=Outcome.UNKNOWN)
    wrong = operation(13, 200, 201, get(Y, [7]))
    result = check([*hard(10), joining, wrong], LIST, states_max=1000)
    assert result.verdict is VIOLATED and result.gave_up and result.explanation is not None
    assert result.explanation.keys == (Y,) and result.explanation.culprit is wrong


def test_a_limit_must_allow_something() -> None:
    """0 would be no search at all."""
    with pytest.raises(ValueError, match="states_max is 0; allowed: at least 1"):
        check([], REGISTER, states_max=0)


def test_an_answer_without_a_return_is_refused() -> None:
    """It would have no place in time."""
    with pytest.raises(ValueError, match="operation 1 is answered, invoked at 0 and returned at None"):
        check([operation(1, 0, None, set_(X, 5))], REGISTER)


def test_an_explanation_names_the_first_answer_that_fits_no_order() -> None:
    """And the longest order before it, without the reads that do not matter and whatever came later."""
    lines: list[Line] = [(0, 1, set_(X, 5)), (2, 3, get(X, 5)), (4, 5, set_(X, 6)), (6, 7, get(X, 6))]
    lines += [
        (8, 9, get(X, 5)),
        (8, 20, set_(X, 8)),
        (10, 11, get(X, 6)),
        (12, 13, set_(X, 7)),
        (14, 15, get(X, 5)),
    ]
    made = history(*lines)
    explanation = check(made, REGISTER).explanation
    assert explanation is not None
    assert explanation.culprit is made[4]
    assert explanation.order == (made[0], made[2]) and explanation.stuck == (made[4],)
    first, third = (
        "    operation 1, write of client 1 at server 1",
        "    operation 3, write of client 3 at server 1",
    )
    assert str(explanation).splitlines() == [
        "not linearizable: keys 1: no order explains operation 5",
        "  the longest order places 2 of 3 answered operations:",
        f"{first}, invoked 0, returned 1: set key 1, 5; then the state is 5",
        f"{third}, invoked 4, returned 5: set key 1, 6; then the state is 6",
        "  one of these had to come next, and none leads on:",
        "    operation 5, read of client 5 at server 1, invoked 8, returned 9: get key 1 -> 5",
    ]


def test_an_explanation_needs_no_other_keys_where_one_is_wrong() -> None:
    """Of operations on several keys it shows what concerns that one."""
    lines = (0, 1, set_(X, 5), set_(Y, 6)), (2, 3, get(X, 5)), (4, 5, get(Y, 0), get(X, 5))
    explanation = check(history(*lines), REGISTER).explanation
    assert explanation is not None and explanation.keys == (Y,)
    assert "set key 1" not in str(explanation)


def test_a_long_history_is_no_deeper_for_the_interpreter() -> None:
    """Ten thousand operations of one key, and only the end of the order is shown."""
    lines: list[Line] = [(2 * at, 2 * at + 1, add(X, at + 1)) for at in range(10_000)]
    result = check(history(*lines), COUNTER)
    assert result.verdict is LINEARIZABLE and result.states == 10_000
    explanation = check(history(*lines[:100], (300, 301, get(X, 5))), COUNTER).explanation
    assert explanation is not None and "(60 operations before)" in str(explanation)


def test_the_order_of_the_log_makes_the_search_short() -> None:
    """Nobody was told whether eight appends took effect; a read shows that every other one did, backwards."""
    took_effect = [7, 5, 3, 1]
    lines: list[Line] = [(0, None, append(X, value)) for value in range(8)]
    operations = history(*lines, (10, 11, get(X, took_effect)))
    places = {1 + value: place for place, value in enumerate(took_effect)}
    assert check(operations, LIST, places=places).states == len(took_effect) + 1
    assert check(operations, LIST).states > 100
    wrong = {number: -place for number, place in places.items()}
    assert check(operations, LIST, places=wrong).verdict is LINEARIZABLE


# -- the slow twin ---------------------------------------------------------------------------------


def fits(order: tuple[Operation, ...], model: Model) -> bool:
    """Does the order keep real time, and allow every result?"""
    for at, later in enumerate(order):
        for earlier in order[:at]:
            if (
                later.outcome is Outcome.OK
                and later.returned is not None
                and later.returned < earlier.invoked
            ):
                return False
    states: dict[Any, Any] = {}
    for placed in order:
        for number, request in enumerate(placed.requests):
            key = model.key(request)
            results = placed.results if placed.outcome is Outcome.OK else None
            result = UNKNOWN_RESULT if results is None else results[number]
            after = model.step(states.get(key, model.initial(key)), request, result)
            if after is None:
                return False
            states[key] = after
    return True


def slowly(operations: list[Operation], model: Model) -> Verdict:
    """Every order of every choice of what took effect."""
    must = [op for op in operations if op.outcome is Outcome.OK]
    may = [op for op in operations if op.kind == "write" and op.outcome in {Outcome.OPEN, Outcome.UNKNOWN}]
    for count in range(len(may) + 1):
        for chosen in combinations(may, count):
            if any(fits(order, model) for order in permutations([*must, *chosen])):
                return LINEARIZABLE
    return VIOLATED


def before(culprit: Operation, operations: list[Operation]) -> list[Operation]:
    """The history before the culprit was answered."""
    last = (culprit.returned, culprit.number)
    return [
        replace(op, outcome=Outcome.OPEN)
        if op.outcome is Outcome.OK and (op.returned, op.number) >= last
        else op
        for op in operations
    ]


keys = st.integers(1, 2)
small = st.integers(0, 3)
register_writes = st.one_of(
    st.builds(set_, keys, small, st.none() | small), st.builds(cas, keys, small, small, st.none() | small)
)
counter_writes = st.builds(add, keys, st.none() | small)
list_writes = st.builds(append, keys, small) | st.builds(append, keys, small, small, small)
list_reads = st.builds(get, keys, st.lists(small, max_size=2))
value_reads = st.builds(get, keys, small)
outcomes = st.sampled_from([Outcome.OK] * 4 + [Outcome.UNKNOWN] * 3 + [Outcome.OPEN, Outcome.REJECTED])


def histories(writes: st.SearchStrategy[Any], reads: st.SearchStrategy[Any]) -> Any:
    requests = st.lists(writes, min_size=1, max_size=2) | st.lists(reads, min_size=1, max_size=2)
    lines = st.tuples(st.integers(0, 6), st.integers(0, 4), outcomes, requests)

    def make(drawn: list[Any]) -> list[Operation]:
        return [
            operation(number, invoked, invoked + lasts, *asked, outcome=outcome)
            for number, (invoked, lasts, outcome, asked) in enumerate(drawn, start=1)
        ]

    return st.lists(lines, max_size=6).map(make)


@pytest.mark.parametrize(
    ("model", "writes", "reads"),
    [
        (REGISTER, register_writes, value_reads),
        (COUNTER, counter_writes, value_reads),
        (LIST, list_writes, list_reads),
    ],
    ids=["register", "counter", "list"],
)
def test_the_search_agrees_with_every_order_tried(model: Model, writes: Any, reads: Any) -> None:
    """On small histories of every kind; and every violation's explanation is one by itself."""

    @settings(max_examples=150, deadline=None)
    @given(histories(writes, reads), st.dictionaries(st.integers(1, 6), st.integers(0, 9)))
    def agrees(operations: list[Operation], places: dict[int, int]) -> None:
        result = check(operations, model, places=places)  # a guess, however wrong, changes no verdict
        assert result.verdict is slowly(operations, model)
        assert (result.explanation is not None) == (result.verdict is VIOLATED)
        if result.explanation is not None:
            assert result.explanation.stuck
            if len({model.key(request) for op in operations for request in op.requests}) == 1:
                assert slowly(before(result.explanation.culprit, operations), model) is LINEARIZABLE

    agrees()
