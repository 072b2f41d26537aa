"""Logging: one readable line, the same values for machines, and never a flood."""

from __future__ import annotations

import logging

import pytest

from craft import logs
from craft.logs import RateLimited, event

LOGGER = logging.getLogger("craft.tests")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger=LOGGER.name)
    return caplog


def test_an_event_is_one_line_and_its_values(lines: pytest.LogCaptureFixture) -> None:
    """People read the line, machines the fields; both find who logged it."""
    event(LOGGER, logging.WARNING, "peer refused", peer=2, reason="another cluster", address="[::1]:7001")
    [record] = lines.records
    assert record.getMessage() == 'peer refused peer=2 reason="another cluster" address=[::1]:7001'
    assert vars(record)["event"] == "peer refused"
    assert vars(record)["fields"] == {"peer": 2, "reason": "another cluster", "address": "[::1]:7001"}
    assert record.filename == "test_logs.py"


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('say "no"', r'"say \"no\""'),
        ("two\nlines", r'"two\nlines"'),
        ("é", "é"),
        ("100%s", "100%s"),
        (None, "None"),
        (0.5, "0.5"),
    ],
)
def test_a_value_stays_one_word_on_one_line(
    lines: pytest.LogCaptureFixture, value: object, word: str
) -> None:
    """What a peer sends cannot forge a line or another field."""
    event(LOGGER, logging.INFO, "x", value=value)
    assert lines.records[0].getMessage() == f"x value={word}"


def test_names_of_the_librarys_own_fields_do_no_harm(lines: pytest.LogCaptureFixture) -> None:
    """`name` or `message` as a field's name would break plain `extra`."""
    event(LOGGER, logging.INFO, "x", name="n", msg="m", args=1, logger="l", level="v", message="t")
    assert lines.records[0].getMessage() == "x name=n msg=m args=1 logger=l level=v message=t"


def test_a_level_that_is_off_renders_nothing(lines: pytest.LogCaptureFixture) -> None:
    """A debug line costs next to nothing: its values are not even turned to text."""

    class Costly:
        def __str__(self) -> str:
            raise AssertionError("rendered")

    event(LOGGER, logging.DEBUG, "x", value=Costly())
    assert lines.records == []


class Hands:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_repeats_are_left_out_and_counted(lines: pytest.LogCaptureFixture) -> None:
    """One line an interval and kind; the next one says how many there would have been."""
    hands = Hands()
    limited = RateLimited(LOGGER, interval_ms=5000, monotonic_s=hands)
    logged = [limited.event("refused", logging.INFO, "refused", peer=peer) for peer in (1, 2, 3)]
    assert logged == [True, False, False]
    assert limited.event("broken", logging.INFO, "broken")
    hands.now += 5
    assert limited.event("refused", logging.INFO, "refused", peer=4)
    hands.now += 5
    assert limited.event("refused", logging.INFO, "refused", peer=5)
    assert [record.getMessage() for record in lines.records] == [
        "refused peer=1",
        "broken",
        "refused peer=4 suppressed=2",
        "refused peer=5",
    ]
    assert {record.filename for record in lines.records} == {"test_logs.py"}


def test_the_memory_of_repeats_is_bounded(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers can make up any number of kinds: the one quiet for longest is forgotten."""
    monkeypatch.setattr(logs, "KEYS_MAX", 2)
    limited = RateLimited(LOGGER, interval_ms=5000, monotonic_s=Hands())
    assert [limited.event(key, logging.INFO, "x") for key in "abacba"] == [
        True,
        True,
        False,
        True,
        True,
        True,
    ]
    assert not limited.event("a", logging.INFO, "x")
    assert len(lines.records) == 5


def test_an_exception_is_attached(lines: pytest.LogCaptureFixture) -> None:
    """The traceback goes where the handlers want it, not into the line."""
    event(LOGGER, logging.ERROR, "failed", exc_info=ValueError("why"))
    info = lines.records[0].exc_info
    assert info is not None
    assert str(info[1]) == "why"
    assert lines.records[0].getMessage() == "failed"
