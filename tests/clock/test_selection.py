"""What a majority of intervals allows: the truth is in it whatever a minority says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from craft.clock.selection import intersect, majority


def test_a_liar_is_named() -> None:
    """Two that agree outvote one that does not, and where they agree is the answer."""
    agreement = intersect({"a": (0, 10), "b": (6, 20), "liar": (1000, 1001)}, majority(3))
    assert agreement is not None
    assert (agreement.low, agreement.high) == (6, 10)
    assert (agreement.middle, agreement.error) == (8, 2)
    assert agreement.falsetickers == ("liar",)


def test_without_a_majority_there_is_no_answer() -> None:
    """Two that contradict each other, or one alone of three, say nothing."""
    assert intersect({"a": (0, 10), "b": (20, 30)}, majority(2)) is None
    assert intersect({"a": (0, 10)}, majority(3)) is None
    assert intersect({}, majority(1)) is None
    assert intersect({"a": (0, 10)}, majority(1)) is not None


def test_edges_touch() -> None:
    """One common value is agreement."""
    agreement = intersect({"a": (0, 10), "b": (10, 30)}, 2)
    assert agreement is not None and (agreement.low, agreement.high, agreement.error) == (10, 10, 0)


@st.composite
def words(draw: st.DrawFn) -> tuple[int, dict[str, tuple[int, int]]]:
    """How many servers there are, and intervals of some: a majority of all true, the rest anything."""
    servers = draw(st.integers(1, 9))
    honest = draw(st.integers(majority(servers), servers))
    true = st.tuples(st.integers(-50, 0), st.integers(0, 50))
    any_two = st.tuples(st.integers(-200, 200), st.integers(0, 100)).map(lambda pair: (pair[0], sum(pair)))
    intervals = {f"true {number}": draw(true) for number in range(honest)}
    for number in range(servers - honest):
        if draw(st.booleans()):
            intervals[f"liar {number}"] = draw(any_two)
    return servers, intervals


@given(words())
def test_the_truth_is_inside(said: tuple[int, dict[str, tuple[int, int]]]) -> None:
    """Where a majority of the configured servers is as good as it says, the result holds the truth: 0."""
    servers, intervals = said
    agreement = intersect(intervals, majority(servers))
    assert agreement is not None
    assert agreement.low <= 0 <= agreement.high
    assert abs(agreement.middle) <= agreement.error
    assert not any(name.startswith("true") for name in agreement.falsetickers)


@given(words())
def test_the_order_of_servers_means_nothing(said: tuple[int, dict[str, tuple[int, int]]]) -> None:
    """The same words in another order are the same answer."""
    servers, intervals = said
    names = sorted(intervals, reverse=True)
    turned = {name: intervals[name] for name in names}
    assert intersect(turned, majority(servers)) == intersect(intervals, majority(servers))
