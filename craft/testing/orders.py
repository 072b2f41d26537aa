"""The search for one order of operations that explains every answer and keeps real time.

Knows: operations as clients saw them, and a model. Must not know: servers, logs, positions.

Wing and Gong's search with Lowe's list and cache (Wing, Gong: Testing and verifying concurrent objects, 1993;
Lowe: Testing for linearizability, 2017), as in Knossos and Porcupine: take any operation that nothing
unplaced precedes in real time, if the model allows its result; go back where nothing fits; never look twice
at the same set of placed operations in the same state.

Invariants
- A history is searched in parts that share no key: keys are of one part where some operation touches both, so
  an operation that touches several keys is placed whole (Herlihy, Wing 1990: linearizability is local).
- VIOLATED is said only after every order was excluded; `states_max` turns a search that is too long into
  GAVE_UP.
- Nothing depends on the order of a set: same operations, same search, in any process.

What keeps the search short, each without loss
- A read that fits is taken at once, without alternatives: in any order that has it later it can be moved to
  here, for it changes nothing. (Not so a write that happens to change nothing here: later it might.)
- Unknown writes are tried last, and only where they change the state.
- Who knows where operations took effect may say so (`places`): they are tried in that order. It is a guess
  like any other, so a wrong one costs time and no more.
- Of unknown writes with the same requests the one invoked first goes first: the two could be exchanged.
- What failed in a state fails there with fewer unknown writes left, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple, TypeAlias

from craft.testing.history import Operation, Outcome
from craft.testing.model import UNKNOWN_RESULT, Key, Model, State

States: TypeAlias = tuple[State, ...]


class Verdict(Enum):
    """What a search found."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "not linearizable"
    GAVE_UP = "gave up"


# -- parts -----------------------------------------------------------------------------------------


class Call(NamedTuple):
    """An operation inside one part: each step is the key's place in the part, the request and its result."""

    operation: Operation
    steps: tuple[tuple[int, bytes, Any], ...]
    returned: int | None  # None: it may take effect at any time from its invocation on, or never

    @property
    def answered(self) -> bool:
        """Must it be placed?"""
        return self.returned is not None

    @property
    def is_read(self) -> bool:
        """Does it change nothing, ever?"""
        return self.operation.kind == "read"


class Part(NamedTuple):
    """Keys that operations join, and every operation that touches them, by number."""

    keys: tuple[Key, ...]
    calls: tuple[Call, ...]


def split(operations: Iterable[Operation], model: Model) -> list[Part]:
    """Split a history where it shares no key, in the order of each part's first operation."""
    found = sorted((op for op in operations if op.requests and _matters(op)), key=lambda op: op.number)
    keyed = [(operation, [model.key(request) for request in operation.requests]) for operation in found]
    parent: dict[Key, Key] = {}
    for _, keys in keyed:
        for key in keys:
            parent.setdefault(key, key)
        for one, other in pairwise(keys):
            parent[_root(parent, other)] = _root(parent, one)
    members: dict[Key, list[Key]] = {}
    for key in parent:  # a dict: in the order of first use
        members.setdefault(_root(parent, key), []).append(key)
    calls: dict[Key, list[Call]] = {root: [] for root in members}
    places = {key: place for keys in members.values() for place, key in enumerate(keys)}
    for operation, keys in keyed:
        calls[_root(parent, keys[0])].append(_call(operation, [places[key] for key in keys]))
    return [Part(tuple(keys), tuple(calls[root])) for root, keys in members.items()]


def _root(parent: dict[Key, Key], key: Key) -> Key:
    while parent[key] != key:
        parent[key] = key = parent[parent[key]]
    return key


def _matters(operation: Operation) -> bool:
    """Could the operation have had an effect, or does it say anything of the state?"""
    if operation.kind == "read":
        return operation.outcome is Outcome.OK and operation.results is not None
    return operation.outcome is not Outcome.REJECTED


def _call(operation: Operation, places: Sequence[int]) -> Call:
    results = operation.results if operation.outcome is Outcome.OK else None
    if results is None:
        results = (UNKNOWN_RESULT,) * len(places)
    if len(results) != len(places):
        raise ValueError(
            f"operation {operation.number} has {len(results)} results; allowed: one for each of its"
            f" {len(places)} requests, or None"
        )
    steps = tuple(zip(places, operation.requests, results, strict=True))
    return Call(operation, steps, _returned(operation))


def _returned(operation: Operation) -> int | None:
    """Until when the operation has taken effect, if it must."""
    if operation.outcome is not Outcome.OK or not operation.ordered:
        return None
    if operation.returned is None or operation.returned < operation.invoked:
        raise ValueError(
            f"operation {operation.number} is answered, invoked at {operation.invoked} and returned at"
            f" {operation.returned}; allowed: returned no earlier than invoked"
        )
    return operation.returned


# -- the search ------------------------------------------------------------------------------------


class _Frame(NamedTuple):
    """A place in the order: who came here, what is placed by now, and what may come next."""

    call: int
    placed: int  # answered calls, a bit each
    used: int  # unknown ones, a bit each
    depth: int  # how many answered calls are placed
    states: States
    options: Iterator[tuple[int, States]]


_START = -1

NOWHERE: Mapping[int, int] = {}


class Search:
    """One search of one part. `run` once; `best` is then the longest order found."""

    def __init__(
        self, part: Part, model: Model, states_max: int, places: Mapping[int, int] = NOWHERE
    ) -> None:
        self.calls = part.calls
        self.states = 0
        """How many pairs (placed operations, state) were visited."""
        self.best: list[int] = []
        self.best_depth = -1
        """How many answered calls that order places."""
        self._step = model.step
        self._states_max = states_max
        self._initial: States = tuple(model.initial(key) for key in part.keys)
        self._seen: dict[tuple[int, States], list[int]] = {}
        self._advanced: dict[tuple[States, int], States | None] = {}
        self._answered = [call.answered for call in part.calls]
        self._is_read = [call.is_read for call in part.calls]
        self._rank = [places.get(call.operation.number, inf) for call in part.calls]
        self._wanted = sum(self._answered)
        self._list_events()
        self._list_unknown()

    def _list_events(self) -> None:
        """Invocations and returns of answered calls as one linked list, by time: Lowe's list of entries.

        Invocations come before returns of the same time, which makes the two concurrent.
        """
        events = [(call.operation.invoked, 0, number) for number, call in enumerate(self.calls)]
        for number, call in enumerate(self.calls):
            if call.returned is not None:
                events.append((call.returned, 1, number))
        events.sort()
        self._invoked_at, self._returned_at = [0] * len(self.calls), [0] * len(self.calls)
        self._invoker = [_START] * (len(events) + 1)  # of an invocation its call; a return has none
        listed = [0]
        for place, (_, is_return, number) in enumerate(events, start=1):
            if is_return:
                self._returned_at[number] = place
            else:
                self._invoked_at[number] = place
                self._invoker[place] = number
            if self._answered[number]:
                listed.append(place)
        self._after, self._before = [0] * (len(events) + 1), [0] * (len(events) + 1)
        for before, after in pairwise([*listed, 0]):  # a ring; place 0 is both its ends
            self._after[before], self._before[after] = after, before

    def _list_unknown(self) -> None:
        """Unknown writes by invocation, each with the bit of its last twin that goes first."""
        unknown = (number for number, answered in enumerate(self._answered) if not answered)
        self._unknown = sorted(unknown, key=self._invoked_at.__getitem__)
        self._twin: dict[int, int] = {}
        last: dict[object, int] = {}
        for number in self._unknown:
            steps = self.calls[number].steps
            self._twin[number] = 1 << last[steps] if steps in last else 0
            last[steps] = number

    def run(self) -> Verdict:
        """Depth first, with a stack of our own: a history may be longer than the interpreter's."""
        stack = [_Frame(_START, 0, 0, 0, self._initial, self._options(0, self._initial))]
        while stack[-1].depth < self._wanted:
            option = next(stack[-1].options, None)
            if option is not None:
                frame = self._enter(stack[-1], *option)
                if frame is not None:
                    stack.append(frame)
                    continue
                if self.states >= self._states_max:
                    return Verdict.GAVE_UP
                continue
            self._note(stack)
            self._put_back(stack.pop().call)
            if not stack:
                return Verdict.VIOLATED
        self._note(stack)
        return Verdict.LINEARIZABLE

    def _enter(self, frame: _Frame, number: int, states: States) -> _Frame | None:
        """Place a call, unless what follows is known to fail."""
        placed, used, depth = frame.placed, frame.used, frame.depth
        if self._answered[number]:
            placed, depth = placed | 1 << number, depth + 1
        else:
            used |= 1 << number
        if self.states >= self._states_max:
            return None
        failed, unused = self._seen.setdefault((placed, states), []), ~used
        for fewer in failed:
            if not fewer & unused:
                return None
        failed.append(used)
        self.states += 1
        self._take_out(number)
        return _Frame(number, placed, used, depth, states, self._options(used, states))

    def _options(self, used: int, states: States) -> Iterator[tuple[int, States]]:
        """What may come next: whatever was invoked before the first return that is not placed."""
        coming = []
        place = self._after[0]
        while (number := self._invoker[place]) != _START:
            after = self.advance(states, number)
            if after is not None and self._is_read[number]:
                yield number, after
                return
            if after is not None:
                coming.append(number)
            place = self._after[place]
        for number in self._unknown:
            if self._invoked_at[number] > place:
                break
            if not (used >> number & 1 or self._twin[number] & ~used):
                coming.append(number)
        coming.sort(key=self._rank.__getitem__)
        for number in coming:
            after = self.advance(states, number)
            if after is not None and (self._answered[number] or after != states):
                yield number, after

    def advance(self, states: States, number: int) -> States | None:
        """The states after a whole operation, or None where a result of it cannot be; worked out once."""
        asked = states, number
        if asked not in self._advanced:
            self._advanced[asked] = self._advance(states, number)
        return self._advanced[asked]

    def _advance(self, states: States, number: int) -> States | None:
        changed = list(states)
        for place, request, result in self.calls[number].steps:
            after = self._step(changed[place], request, result)
            if after is None:
                return None
            changed[place] = after
        return tuple(changed)

    def _take_out(self, number: int) -> None:
        if self._answered[number]:
            for place in (self._invoked_at[number], self._returned_at[number]):
                before, after = self._before[place], self._after[place]
                self._after[before], self._before[after] = after, before

    def _put_back(self, number: int) -> None:
        """Undo the last taking out: its neighbours find it again where it was (Knuth's dancing links)."""
        if number != _START and self._answered[number]:
            for place in (self._returned_at[number], self._invoked_at[number]):
                self._after[self._before[place]] = self._before[self._after[place]] = place

    def _note(self, stack: list[_Frame]) -> None:
        """Remember the longest order, and of equal ones that with the fewest unknown writes; at its end only,
        for most orders are part of a longer one.
        """
        if (stack[-1].depth, -len(stack)) > (self.best_depth, -len(self.best) - 1):
            self.best_depth = stack[-1].depth
            self.best = [frame.call for frame in stack[1:]]

    # -- for explanations ------------------------------------------------------------------------

    def next_answered(self, order: Sequence[int]) -> list[int]:
        """Of the answered calls that are not in the order, those that may come next in real time."""
        placed = frozenset(order)
        missing = [n for n, call in enumerate(self.calls) if call.answered and n not in placed]
        first = min((self._returned_at[number] for number in missing), default=0)
        return [number for number in missing if self._invoked_at[number] < first]

    def replay(self, order: Sequence[int]) -> Iterator[tuple[int, States]]:
        """Each call of an order that was found, with the states after it."""
        states = self._initial
        for number in order:
            after = self.advance(states, number)
            assert after is not None, "the order was found by these very steps"
            states = after
            yield number, states
