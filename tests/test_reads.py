"""Quorum reads: when a round is complete, and what it then waits for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from craft.messages import GroupReport, ReadReport
from craft.reads import QuorumReads
from craft.types import NOWHERE, Configuration, Place

RETRY = 100
THREE = Configuration(frozenset({0, 1, 2}))
JOINT = Configuration(frozenset({1, 3, 4}), outgoing=frozenset({0, 1, 2}))
FINAL = Configuration(frozenset({1, 3, 4}))


def group(
    last_command: Place = NOWHERE, configuration: Configuration = THREE, at: Place = NOWHERE
) -> GroupReport:
    return GroupReport(last_command, last_command, at, configuration)


def begun(*tokens: str) -> QuorumReads:
    """A round is under way for these reads."""
    reads = QuorumReads(10)
    for token in tokens or ("read",):
        reads.add(token)
    assert reads.begin(0, RETRY)
    return reads


def report(reads: QuorumReads, server: int, *groups: GroupReport, round_: int | None = None) -> bool:
    """A server reports to the round under way; is a round complete?"""
    before = len(reads.completed)
    number = reads.round if round_ is None else round_
    reads.report(server, ReadReport(number, groups or (group(),)), max(1, len(groups)))
    return len(reads.completed) > before


# -- rounds -----------------------------------------------------------------------------------------------


def test_no_round_without_a_read() -> None:
    """An idle server asks nobody anything."""
    assert not QuorumReads(0).begin(0, RETRY)


def test_a_round_serves_all_reads_that_wait() -> None:
    """Once for all waiting reads."""
    reads = begun("a", "b")
    report(reads, 0)
    assert report(reads, 1)
    assert reads.completed[0].tokens == ["a", "b"]


def test_a_read_that_comes_later_takes_the_next_round() -> None:
    """A report may be older than the read: it serves those that waited when the round was sent."""
    reads = begun("a")
    reads.add("b")
    assert not reads.begin(1, RETRY)
    report(reads, 0)
    report(reads, 1)
    assert (reads.completed[0].tokens, reads.pending) == (["a"], 1)
    assert reads.begin(2, RETRY)
    report(reads, 0)
    report(reads, 1)
    assert reads.completed[1].tokens == ["b"]


def test_a_late_report_is_ignored() -> None:
    """Each round has a fresh number; a report of one for other reads, or of none, counts for nothing."""
    reads = begun()
    old = reads.round
    report(reads, 0)
    assert report(reads, 2)
    assert not report(reads, 1)
    reads.add("later")
    assert reads.begin(1, RETRY)
    assert reads.round != old
    assert not report(reads, 0)
    assert not report(reads, 1, round_=old)
    assert not report(reads, 1, round_=reads.round + 1)
    assert report(reads, 1)


def test_a_report_of_an_earlier_attempt_counts() -> None:
    """It was made after these very reads arrived; where round trips are longer than attempts all are late."""
    reads = begun("a")
    first = reads.round
    reads.add("b")
    for attempt in (1, 2):
        assert reads.begin(attempt * RETRY, RETRY)
        assert not report(reads, 0)
    assert report(reads, 1, round_=first)
    assert reads.completed[0].tokens == ["a"]
    assert reads.begin(3 * RETRY, RETRY)
    assert not report(reads, 0)
    assert not report(reads, 1, round_=first + 2), "it may be older than b"


def test_a_round_that_takes_too_long_is_begun_afresh() -> None:
    """With the same reads, from nothing; those that came meanwhile wait for the one after."""
    reads = begun("a")
    report(reads, 0)
    reads.add("b")
    assert not reads.begin(RETRY - 1, RETRY)
    assert reads.begin(RETRY, RETRY)
    assert not report(reads, 1)
    assert report(reads, 2)
    assert reads.completed[0].tokens == ["a"]


def test_a_server_that_reports_twice_counts_once() -> None:
    """A duplicate makes no majority."""
    reads = begun()
    assert not report(reads, 1)
    assert not report(reads, 1)


def test_a_report_of_another_number_of_groups_is_ignored() -> None:
    """It does not belong to this cluster."""
    reads = begun()
    report(reads, 0)
    reads.report(1, ReadReport(reads.round, (group(), group())), 1)
    assert reads.completed == []


def test_a_reader_that_went_away_is_forgotten() -> None:
    """In whichever stage its read is; the others' are served."""
    reads = begun("a", "b")
    reads.add("c")
    reads.discard("a")
    reads.discard("c")
    reads.discard("never asked")
    report(reads, 0)
    report(reads, 1)
    assert (reads.completed[0].tokens, reads.pending) == (["b"], 0)
    reads.discard("b")
    assert reads.completed[0].tokens == []


# -- which majority ---------------------------------------------------------------------------------------


def test_an_outdated_configuration_widens_the_round() -> None:
    """(†) A majority of the reader's own, outdated configuration would read stale (protocol attack 2)."""
    reads = begun()
    report(reads, 0)
    assert not report(reads, 2, group(configuration=JOINT, at=Place(2, 5)))
    assert report(reads, 1, group(last_command=Place(3, 9), configuration=FINAL, at=Place(3, 8))) is False
    assert report(reads, 3)
    assert reads.completed[0].targets == {0: Place(3, 9)}


def test_who_knows_itself_that_it_is_another_machine_does_not_count() -> None:
    """Soak seed 2924: founder 1's id lives on a new disk, and the reader, new as well, knows no disk at all.

    Both go by the cluster's creation. The new machine knows that it is not the founder, and says so.
    """
    alone, impostor = Configuration(frozenset({1})), Configuration(frozenset({1}), disks=((1, "founder"),))
    reads = begun()
    reads.report(3, ReadReport(reads.round, (group(configuration=alone),)), 1, "new-3")
    reads.report(1, ReadReport(reads.round, (group(configuration=impostor),)), 1, "new-1")
    assert not reads.completed
    bound = Configuration(frozenset({3}), version=2, disks=((3, "new-3"),))
    reads.report(4, ReadReport(reads.round, (group(configuration=bound, at=Place(1, 4)),)), 1, "four")
    assert reads.completed  # who knows the configuration tells it; the reader itself is its only voter by now


def test_a_joint_configuration_needs_both_majorities() -> None:
    """A majority of the new servers alone, or of the old alone, is none."""
    reads = begun()
    joint = group(configuration=JOINT, at=Place(2, 5))
    assert not any(report(reads, server, joint) for server in (3, 4, 0))
    assert report(reads, 1, joint)


def test_the_latest_configuration_is_the_one_of_the_highest_term() -> None:
    """Term first: a longer log of an older term names an older configuration."""
    reads = begun()
    report(reads, 0, group(configuration=FINAL, at=Place(2, 90)))
    report(reads, 1, group(configuration=THREE, at=Place(3, 1)))
    assert len(reads.completed) == 1


def test_a_stranger_fills_no_majority_but_raises_the_target() -> None:
    """Any report may name a target or a configuration; only voters are counted."""
    reads = begun()
    report(reads, 0)
    assert not report(reads, 9, group(last_command=Place(4, 4)))
    assert report(reads, 1)
    assert reads.completed[0].targets == {0: Place(4, 4)}


def test_every_group_needs_its_majority() -> None:
    """One group that is joint elsewhere holds back the read of all."""
    reads = begun()
    report(reads, 0, group(), group())
    assert not report(reads, 1, group(), group(configuration=FINAL, at=Place(1, 1)))
    assert report(reads, 3, group(), group())


# -- targets ------------------------------------------------------------------------------------------------

places = st.builds(Place, st.integers(0, 3), st.integers(0, 5))


@given(st.lists(st.tuples(places, places), min_size=3, max_size=3), st.permutations([0, 1, 2]))
def test_a_target_is_the_greatest_report_of_each_group(
    commands: list[tuple[Place, Place]], order: list[int]
) -> None:
    """Term first; reports beyond the majority are not waited for, and change nothing any more."""
    reads = begun()
    for server in order:
        report(reads, server, *(group(last_command=place) for place in commands[server]))
    (waiting,) = reads.completed
    heard = [commands[server] for server in order[:2]]
    assert waiting.targets == {g: max(places[g] for places in heard) for g in (0, 1)}


def test_a_suspects_report_fills_no_majority() -> None:
    """It may have forgotten the latest entry: what it names counts, and it does not."""
    reads = begun()
    report(reads, 0)
    assert not report(reads, 1, group(Place(3, 9))._replace(suspect=True))
    assert report(reads, 2)
    assert reads.completed[0].targets[0] == Place(3, 9)
