"""What a client with a session makes of its attempts."""

from __future__ import annotations

import pytest

from craft.errors import (
    CommandTooLarge,
    NotReady,
    Overloaded,
    Rejected,
    RemoteError,
    SessionEnded,
    Unknown,
    Unreachable,
)
from craft.insisting import Asked, BeginAnew, Next, Window
from craft.limits import CLIENT_WINDOW_REQUESTS_MAX


def uncertain() -> Asked:
    """A request of which an answer was lost."""
    asked = Asked()
    asked.lost()
    return asked


@pytest.mark.parametrize("error", [NotReady("stopping"), Rejected("a floor ahead")])
@pytest.mark.parametrize("asked", [Asked(), uncertain()], ids=["certain", "uncertain"])
def test_another_server_is_asked_where_one_does_not_serve(asked: Asked, error: Rejected) -> None:
    """Whatever came of the attempts before: the number is the same, so asking again does no harm."""
    assert asked.refused(error) is Next.ELSEWHERE


@pytest.mark.parametrize("error", [Overloaded("full"), CommandTooLarge("long"), RemoteError("what?")])
def test_a_refusal_is_told_where_no_attempt_had_an_effect(error: Rejected) -> None:
    """As it is: it speaks of the whole call."""
    with pytest.raises(type(error)):
        Asked().refused(error)


def test_a_refusal_says_nothing_of_an_attempt_whose_answer_was_lost() -> None:
    """An overloaded server is asked again; what makes no sense to it leaves the call unknown."""
    assert uncertain().refused(Overloaded("full")) is Next.LATER
    with pytest.raises(Unknown, match="answer was lost, and then: what"):
        uncertain().refused(RemoteError("what?"))


def test_only_what_is_certainly_without_effect_is_begun_anew() -> None:
    """In a session that has ended an attempt may have had its effect before."""
    with pytest.raises(BeginAnew):
        Asked().ended()
    with pytest.raises(SessionEnded, match="took effect then, or never"):
        uncertain().ended()


def test_no_server_in_reach_is_a_refusal_or_unknown() -> None:
    """Nothing was asked, or something was and nobody can be asked about it."""
    with pytest.raises(Unreachable):
        Asked().unreachable(Unreachable("nobody"))
    with pytest.raises(Unknown, match="nobody"):
        uncertain().unreachable(Unreachable("nobody"))


def test_the_line_is_the_first_request_that_is_not_answered() -> None:
    """Answers come in any order."""
    window = Window()
    assert [window.begin() for _ in range(3)] == [1, 2, 3]
    assert window.below == 1
    window.settle(2)
    assert window.below == 1
    window.settle(1)
    assert window.below == 3
    window.settle(3)
    assert (window.below, window.begin()) == (4, 4)


def test_a_window_is_full_where_the_servers_would_refuse() -> None:
    """However many of its later requests are answered."""
    window = Window()
    for number in range(1, CLIENT_WINDOW_REQUESTS_MAX + 1):
        assert not window.full
        window.begin()
        if number > 1:
            window.settle(number)
    assert window.full
    window.settle(1)
    assert not window.full
