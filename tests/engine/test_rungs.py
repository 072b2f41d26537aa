"""Where a command's time goes: one entry a group is watched from rung to rung."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from craft.engine import rungs
from craft.engine.state import Climb, Probe
from tests.driver import MS, SECOND, Cluster


def settled(**settings: int | tuple[int, int]) -> Cluster:
    """Every group is led where it belongs, and nothing is under way."""
    c = Cluster(**settings)  # type: ignore[arg-type]
    c.settle_evenly()
    c.quiesce()
    return c


def probes(c: Cluster, i: int = 0) -> dict[int, Probe]:
    return c.servers[i].engine.state.probes


def climbs(c: Cluster, i: int = 0) -> list[Climb]:
    return c.servers[i].engine.state.climbs


def durations(climb: Climb) -> list[int]:
    """From rung to rung: to persisted, committed, merged, applied."""
    return [after - before for before, after in zip(climb.at, climb.at[1:], strict=False)]


def test_a_command_is_watched_up_the_ladder() -> None:
    """Each rung has its instant, none before the one below; all together are what the caller waits."""
    c = settled(apply=(3 * MS, 3 * MS))
    began = c.time
    token = c.propose(0, b"one")
    waited = c.run_until(lambda: c.answered(0, token))
    [climb] = climbs(c)
    assert (climb.group, climb.token) == (0, token)
    assert len(climb.at) == len(rungs.RUNGS)
    assert min(durations(climb)) >= 0
    assert climb.at[0] == began and climb.at[-1] == began + waited
    assert durations(climb)[-1] == 3 * MS


def test_only_the_leader_watches() -> None:
    """The followers of the entry's group have nothing to tell."""
    c = settled()
    c.write_and_wait(0, b"one")
    c.quiesce()
    assert [len(climbs(c, i)) for i in c.ids] == [1, 0, 0]


def test_waiting_for_a_majority_is_the_time_to_committed() -> None:
    """Durable here, and nobody else has it: the probe stands on its second rung."""
    c = settled()
    c.held = {1, 2}
    token = c.propose(0, b"one")
    c.run(20 * MS)
    assert len(probes(c)[0].at) == 2
    c.held.clear()
    c.run_until(lambda: c.answered(0, token))
    [climb] = climbs(c)
    to_persisted, to_committed, *_ = durations(climb)
    assert to_persisted < MS and to_committed > 18 * MS


def test_what_is_committed_before_it_is_persisted_reaches_both_at_once() -> None:
    """A majority without this disk is enough to commit, and not to climb: the disk is what is waited for."""
    c = settled()
    c.held = {0}
    token = c.propose(0, b"one")
    c.run(20 * MS)
    index = probes(c)[0].index
    assert c.raft(0, 0).commit_index >= index > c.raft(0, 0).log.persisted
    assert len(probes(c)[0].at) == 1
    c.held.clear()
    c.run_until(lambda: c.answered(0, token))
    [climb] = climbs(c)
    to_persisted, to_committed, *_ = durations(climb)
    assert to_persisted > 18 * MS and to_committed == 0


def test_waiting_for_another_group_is_the_time_to_merged() -> None:
    """Another group's leader is paused: committed at once, not merged before somebody closes that group."""
    c = settled()
    c.pause(1)
    token = c.propose(0, b"one")
    c.run(20 * MS)
    assert len(probes(c)[0].at) == 3
    c.run_until(lambda: c.answered(0, token))
    [climb] = climbs(c)
    assert sum(durations(climb)) - durations(climb)[2] < 10 * MS < durations(climb)[2]


def test_each_group_has_one_probe_at_a_time() -> None:
    """What is appended while the group's entry is watched is not; the first one after it is."""
    c = settled(servers=1)
    c.held = {0}
    for number in range(3):  # each too large to share an entry, and so a group, with another
        c.propose(0, bytes([number]) * (c.limits.entry_bytes_max * 2 // 3))
    c.run(MS)
    watched = {group: probe.index for group, probe in probes(c).items()}
    assert sorted(watched) == [0, 1, 2]
    for number in range(3, 9):
        c.propose(0, b"%d" % number)
        c.run(MS)
    assert {group: probe.index for group, probe in probes(c).items()} == watched
    c.held.clear()
    c.quiesce()
    assert sorted(climb.group for climb in climbs(c)) == [0, 1, 2]
    c.write_and_wait(0, b"later")
    assert len(climbs(c)) == 4


def test_nothing_is_held_when_idle() -> None:
    """Neither sessions that open nor entries that only close are watched, and no probe outlives its entry."""
    c = settled()
    assert [(probes(c, i), climbs(c, i)) for i in c.ids] == [({}, [])] * 3
    c.write_and_wait(1, b"one")
    c.quiesce()
    assert [probes(c, i) for i in c.ids] == [{}] * 3


def test_an_entry_whose_leader_is_deposed_is_watched_no_more() -> None:
    """It may be lost. That it is merged later, through another leader, is no measurement."""
    c = settled()
    c.cut(0, 1)
    c.cut(0, 2)
    token = c.propose(0, b"one")
    c.run(20 * MS)
    assert len(probes(c)[0].at) == 2
    c.run_until(lambda: not c.raft(0, 0).leads)
    assert probes(c) == {}
    c.heal()
    c.run_until(lambda: c.answered(0, token))
    assert climbs(c) == []


def test_an_entry_that_takes_too_long_is_watched_no_more() -> None:
    """A disk that hangs for a minute leaves no probe behind, and the next entry is watched again."""
    c = settled(servers=1, groups=1)
    c.held = {0}
    token = c.propose(0, b"one")
    c.run(rungs.PROBE_NS_MAX - SECOND)
    assert list(probes(c)) == [0]
    c.run(2 * SECOND)
    assert probes(c) == {}
    c.held.clear()
    c.run_until(lambda: c.answered(0, token))
    assert climbs(c) == []
    c.write_and_wait(0, b"two")
    assert len(climbs(c)) == 1


def test_who_asked_is_known_for_this_servers_requests_only() -> None:
    """Another server's command is watched as well, but since when its caller waits is not known here."""
    c = settled(groups=1)
    c.write_and_wait(1, b"elsewhere")
    c.quiesce()
    own = c.propose(0, b"here")
    c.run_until(lambda: c.answered(0, own))
    assert [climb.token for climb in climbs(c)] == [None, own]


def test_measurements_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that keeps no figures keeps no heap of them either."""
    monkeypatch.setattr(rungs, "CLIMBS_MAX", 2)
    c = settled()
    for number in range(5):
        c.write_and_wait(0, b"%d" % number)
    assert len(climbs(c)) == 2
    assert probes(c) == {}


def calls_into_rungs(requests: int) -> int:
    """How often anything in the module is called for so many requests that become one entry."""
    c = settled()
    calls = 0

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename == rungs.__file__

    tokens = [c.propose(0, b"%d" % number) for number in range(requests)]
    sys.setprofile(count)
    try:
        c.run_until(lambda: c.answered(0, tokens[-1]))
    finally:
        sys.setprofile(None)
    assert len(climbs(c)) == 1
    return calls


def test_watching_costs_nothing_a_command() -> None:
    """Five hundred requests in an entry cost as many steps as one."""
    assert calls_into_rungs(500) == calls_into_rungs(1) < 60
