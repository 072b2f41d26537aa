"""Members that change in the simulator: nothing is lost by it, and the checkers see what would be."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import quorum
from craft.engine import membership as engine_membership
from craft.raft import membership
from craft.testing.checkers.membership import meet
from craft.testing.members import KINDS
from craft.testing.plan import MS, SECOND, MemberChange, Plan
from craft.testing.run import Run, run
from craft.types import Configuration, ServerId


def plan(seed: int, *kinds: str, sync_ms: int = 0) -> Plan:
    """Changes one after the other, and no bad luck beside them; disks may be slow."""
    pause = 700 if not sync_ms else 4000
    changes = tuple(MemberChange(at * pause * MS, kind, seed * 100 + at) for at, kind in enumerate(kinds, 1))
    sync = (sync_ms * MS, 2 * sync_ms * MS) if sync_ms else (200_000, 600_000)
    duration = (len(kinds) + 2) * (pause + 300) * MS
    return Plan(seed, servers=3, groups=2, sync=sync, changes=changes, duration=duration)


def test_servers_come_and_go_and_nothing_is_lost() -> None:
    """Every kind of change, from every size of cluster to every other."""
    for seed in (1, 2):
        result = run(plan(seed, *KINDS, "shuffle", "shuffle"))
        assert result.violation is None, result.violation
        assert result.marks["wanted set reached"] and result.marks["joint begun"]


def test_ids_come_back_and_nothing_is_lost() -> None:
    """Another machine under an id that left, and one that is wanted again when it was just switched off."""
    for seed in (1, 2):
        result = run(plan(seed, "add", "remove", "come_back", "regret", "regret", "come_back", "regret"))
        assert result.violation is None, result.violation
        assert result.marks["removed server switched off"]


def test_a_cluster_without_changes_binds_nobody() -> None:
    """What does not change costs no entry: seeds of before keep their histories."""
    result = run(Plan(1, servers=3, groups=2, duration=SECOND))
    assert result.violation is None
    assert not result.marks["configuration appended"]


def test_a_group_that_leaves_joint_out_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one set of voters to the next without both majorities: two quorums may miss each other."""

    def at_once(prepared: Configuration, voters: Any) -> Configuration:
        return Configuration(voters, learners=prepared.members - voters, version=prepared.version)

    monkeypatch.setattr(membership, "_joint", at_once)
    caught = [run(plan(seed, "shuffle", "replace", "shuffle")).violation for seed in range(3)]
    assert any(one and one.property == "quorums of neighbouring configurations meet" for one in caught)


def test_a_leader_that_does_not_wait_for_the_commit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One configuration upon another that may still be overwritten."""
    monkeypatch.setattr(membership, "configuration_known", lambda _r: True)
    monkeypatch.setattr(
        membership, "may_change", lambda r: r.leads and not r.noop_due and r.transfer_to is None
    )
    caught = [run(plan(seed, "shuffle", "replace", "shuffle", sync_ms=300)).violation for seed in range(3)]
    assert any(one and one.property == "a configuration follows a committed one" for one in caught)


def test_a_change_that_is_told_too_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The final configuration is appended in every group, and not yet committed in all."""
    monkeypatch.setattr(engine_membership, "_committed", lambda r: r.configuration)
    caught = [run(plan(seed, "shuffle", "replace", "shuffle", sync_ms=300)).violation for seed in range(3)]
    told = "a change that is told as done is done in every group"
    assert any(one and one.property == told for one in caught)


def test_a_server_that_is_wanted_again_while_it_runs_tells_its_disk_again() -> None:
    """Removed, and added without a disk before it was switched off: its session is open, none will follow.

    Until its disk is bound nobody counts its votes, so the change would never come to its end.
    """
    changes = (MemberChange(700 * MS, "remove", 6), MemberChange(720 * MS, "add", 6))
    result = run(Plan(1, servers=3, groups=2, changes=changes, duration=4 * SECOND))
    assert result.marks["disk told again"]
    assert result.violation is None, result.violation


def test_no_second_disk_is_taken_before_the_first_is_readmitted() -> None:
    """Soak seed 123163: two of three disks are what nothing survives, and the operator must count the first.

    Nobody missed it: its machine was cut off from the start, so the others had never met its disk.
    """
    made = Run(Plan(1, servers=3, groups=2, duration=2 * SECOND))
    world = made.world
    for i in world.ids:
        world.at(0, partial(world.start, i))
    world.run(2 * SECOND)
    assert world.operator.may_wipe(3), "all is well"
    world.wiped.add(1)  # as if no server had a disk by its name, old or new
    assert not world.operator.may_wipe(3)
    for server in world.servers.values():
        members = server.engine.state.members
        members.servers[1] = members.servers[1]._replace(disk=world.disks[1].disk_id)
    assert world.operator.may_wipe(3), "all have merged that it is wanted on its new one"


# -- the checker's own arithmetic ------------------------------------------------------------------

voters = st.frozensets(st.integers(1, 4), min_size=1)
configurations = st.builds(
    lambda voting, outgoing, disks: Configuration(
        voting,
        outgoing,
        disks=tuple((i, disk) for i, disk in sorted(disks.items()) if i in voting | outgoing),
    ),
    voters,
    voters | st.just(frozenset()),
    st.dictionaries(st.integers(1, 4), st.sampled_from("ab")),
)


def quorums(configuration: Configuration) -> list[dict[ServerId, str]]:
    """Every set of disks that decides."""
    disks, voting = dict(configuration.disks), sorted(configuration.voters | configuration.outgoing)
    return [
        {server: disks.get(server, "") for server in some}
        for size in range(len(voting) + 1)
        for some in combinations(voting, size)
        if quorum.is_quorum(configuration, some)
    ]


def share(a: dict[ServerId, str], b: dict[ServerId, str]) -> bool:
    """Is a disk in both? An id that is not bound is on whichever disk the other says."""
    return any(a[server] == b[server] or "" in (a[server], b[server]) for server in a.keys() & b.keys())


@given(configurations, configurations)
def test_quorums_meet_where_each_shares_a_disk_with_each(before: Configuration, after: Configuration) -> None:
    """The quick way to say so against the slow one."""
    assert meet(before, after) == all(share(a, b) for a in quorums(before) for b in quorums(after))
