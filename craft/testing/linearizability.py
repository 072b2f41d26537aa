"""Did clients see one copy of the state, which every operation took effect on at one point of its interval?

Knows: operations as clients saw them, and a model. Must not know: servers, logs, positions. The search is
`craft.testing.orders`; here are the verdict and its words.

What takes effect
- An answered operation: once, between its invocation and its return. An operation that returned at `t` and
  one that was invoked at `t` count as concurrent, whoever asked: the simulated world goes by turns, and does
  not order what happens in one.
- An unknown or open write: never, or once at any time from its invocation on, also after the history's end.
- A rejected write: never. Where it did, the answers of others will not fit.
- A read that was not answered says nothing.

Invariants
- An explanation is itself a violation: on a beginning of the history, with fewer reads, and where one key is
  enough, of one key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from craft.testing.history import Operation
from craft.testing.model import UNKNOWN_RESULT, Key, Model, State
from craft.testing.orders import NOWHERE, Call, Part, Search, Verdict, split

__all__ = ["UNKNOWN_RESULT", "Explanation", "Key", "Model", "Result", "State", "Verdict", "check"]

STATES_MAX = 200_000
"""How many pairs (placed operations, state) the search of one part may visit: seconds, and about 100 MiB."""

SHOWN_MAX = 40
"""How many of the last operations of an order an explanation shows."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why there is no order, on as few operations as could be found.

    With the answer of `culprit` there is no order; before it was answered there was one (or the search for it
    gave up).
    """

    keys: tuple[Key, ...]
    culprit: Operation
    order: tuple[Operation, ...]
    """The longest order that was found, with the unknown writes in it that took effect."""
    stuck: tuple[Operation, ...]
    """Answered operations of which one had to come next."""
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Result:
    """A verdict over all parts of a history. VIOLATED outweighs GAVE_UP outweighs LINEARIZABLE."""

    verdict: Verdict
    parts: int
    states: int
    """Visited by the searches for a verdict, all parts together."""
    explanation: Explanation | None = None
    """Of the first part (by its first operation) that is VIOLATED."""
    gave_up: str = ""
    """Which limit was met first, and where; empty where no search gave up."""

    def __str__(self) -> str:
        if self.explanation is not None:
            return str(self.explanation)
        return self.gave_up or f"{self.verdict.value}: {self.parts} parts, {self.states} states"


def check(
    operations: Iterable[Operation],
    model: Model,
    *,
    states_max: int = STATES_MAX,
    places: Mapping[int, int] = NOWHERE,
) -> Result:
    """Check a history. `states_max` bounds each search: of a part, and for its explanation.

    `places` of operations, by number, in an order that is worth trying first; no verdict depends on it.
    """
    if states_max < 1:
        raise ValueError(f"states_max is {states_max}; allowed: at least 1")
    states, violated, gave_up = 0, list[Part](), ""
    parts = split(operations, model)
    for part in parts:
        search = Search(part, model, states_max, places)
        verdict = search.run()
        states += search.states
        if verdict is Verdict.GAVE_UP:
            gave_up = gave_up or _limit(part, states_max)
        if verdict is Verdict.VIOLATED or (verdict is Verdict.GAVE_UP and _wrong(part, model, states_max)):
            violated.append(part)
    if violated:
        explanation = _explain(violated[0], model, states_max)
        return Result(Verdict.VIOLATED, len(parts), states, explanation, gave_up)
    verdict = Verdict.GAVE_UP if gave_up else Verdict.LINEARIZABLE
    return Result(verdict, len(parts), states, None, gave_up)


def _limit(part: Part, states_max: int) -> str:
    unknown = sum(not call.answered for call in part.calls)
    return (
        f"gave up: keys {_names(part.keys)} with {len(part.calls)} operations, {unknown} of them unknown,"
        f" need more than states_max = {states_max} states"
    )


# -- what a violation does not need ----------------------------------------------------------------


def _violated(part: Part, model: Model, states_max: int) -> bool:
    return Search(part, model, states_max).run() is Verdict.VIOLATED


def _wrong(part: Part, model: Model, states_max: int) -> Part | None:
    """One key of several whose operations alone have no order, for then all together have none."""
    if len(part.keys) > 1:
        for place in range(len(part.keys)):
            alone = _one_key(part, place)
            if _violated(alone, model, states_max):
                return alone
    return None


def _one_key(part: Part, place: int) -> Part:
    """What happened to one key of a part."""
    calls = []
    for call in part.calls:
        steps = tuple((0, request, result) for at, request, result in call.steps if at == place)
        if steps:
            calls.append(call._replace(steps=steps))
    return Part((part.keys[place],), tuple(calls))


def _beginning(part: Part, returns: Sequence[tuple[int, int]]) -> Part:
    """The part as it stood at the last of these returns: who had not returned had not been answered."""
    returned = {at for _, at in returns}
    calls = []
    for at, call in enumerate(part.calls):
        if at in returned:
            calls.append(call)
        elif not call.is_read:
            steps = tuple((place, request, UNKNOWN_RESULT) for place, request, _ in call.steps)
            calls.append(call._replace(steps=steps, returned=None))
    return Part(part.keys, tuple(calls))


def _shortest_beginning(part: Part, model: Model, states_max: int) -> tuple[Part, Operation]:
    """The part up to the first answer that fits no order, and whose it is. (If a history has an order, so has
    every beginning of it.)
    """
    returns = sorted((call.returned, at) for at, call in enumerate(part.calls) if call.returned is not None)
    fits, fails = 0, len(returns)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if _violated(_beginning(part, returns[:middle]), model, states_max):
            fails = middle
        else:
            fits = middle
    return _beginning(part, returns[:fails]), part.calls[returns[fails - 1][1]].operation


def _fewer_reads(part: Part, culprit: Operation, model: Model, states_max: int) -> Part:
    """Leave out reads that the violation does not need. (Writes stay: a value must come from somewhere.)"""
    left = states_max
    for call in part.calls:
        if call.is_read and call.operation is not culprit and left > 0:
            fewer = part._replace(calls=tuple(other for other in part.calls if other is not call))
            search = Search(fewer, model, left)
            if search.run() is Verdict.VIOLATED:
                part = fewer
            left -= search.states
    return part


# -- words -----------------------------------------------------------------------------------------


def _explain(part: Part, model: Model, states_max: int) -> Explanation:
    part = _wrong(part, model, states_max) or part
    part, culprit = _shortest_beginning(part, model, states_max)
    part = _fewer_reads(part, culprit, model, states_max)
    search = Search(part, model, states_max)
    search.run()
    stuck = search.next_answered(search.best)
    return Explanation(
        part.keys,
        culprit,
        tuple(part.calls[number].operation for number in search.best),
        tuple(part.calls[number].operation for number in stuck),
        _text(part, model, search, culprit, stuck),
    )


def _text(part: Part, model: Model, search: Search, culprit: Operation, stuck: Sequence[int]) -> str:
    answered = sum(call.answered for call in part.calls)
    lines = [
        f"not linearizable: keys {_names(part.keys)}: no order explains operation {culprit.number}",
        f"  the longest order places {search.best_depth} of {answered} answered operations:",
    ]
    placed = [
        f"    {_words(part.calls[number], model)}; then the state is {_names(states)}"
        for number, states in search.replay(search.best)
    ]
    if len(placed) > SHOWN_MAX:
        lines.append(f"    ({len(placed) - SHOWN_MAX} operations before)")
    lines += placed[-SHOWN_MAX:]
    lines.append("  one of these had to come next, and none leads on:")
    lines += [f"    {_words(part.calls[number], model)}" for number in stuck]
    return "\n".join(lines)


def _words(call: Call, model: Model) -> str:
    operation = call.operation
    asked = ", ".join(
        model.describe(request) + ("" if result is UNKNOWN_RESULT else f" -> {result!r}")
        for _, request, result in call.steps
    )
    until = "no answer" if call.returned is None else f"returned {call.returned}"
    return (
        f"operation {operation.number}, {operation.kind} of client {operation.client} at server"
        f" {operation.server}, invoked {operation.invoked}, {until}: {asked}"
    )


def _names(values: Iterable[object]) -> str:
    return ", ".join(map(repr, values))
