"""The wanted set of servers: what a change may ask for, and that it is the same everywhere (PROTOCOL 8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.membership import Add, Change, Members, Move, Remove, encode_changes
from craft.types import Member

HERE, THERE = "10.0.0.1:7000", "10.0.0.2:7000"


def asked(members: Members, *changes: Change) -> str:
    """Why these changes were refused; empty: they were made."""
    return members.apply(encode_changes(changes))


def test_a_change_has_a_version_of_its_own() -> None:
    """Several together are one version."""
    members = Members([1, 2, 3])
    assert asked(members, Add(4, HERE), Remove(3)) == ""
    assert (members.version, [*members.servers]) == (1, [1, 2, 4])


def test_what_changes_nothing_is_taken_and_has_no_version() -> None:
    """So a change whose answer was lost may be asked for again."""
    members = Members([1])
    assert asked(members, Add(2, HERE)) == asked(members, Add(2, HERE)) == ""
    assert members.version == 1


def test_a_change_is_refused_whole() -> None:
    """The second cannot be, so the first is not made either."""
    members = Members([1, 2])
    assert "server 9 is not a member; members are 1, 2, 3" in asked(members, Add(3, HERE), Remove(9))
    assert (members.version, [*members.servers]) == (0, [1, 2])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ([Remove(1), Remove(2)], "no server would be left"),
        ([Add(0, HERE)], "server id 0; allowed are 1 to"),
        ([Add(3, "nowhere")], "address 'nowhere'; allowed is host:port"),
        ([Move(1, "a:99999")], "allowed is host:port with a port from 1 to 65535"),
        ([Add(3, HERE, "no disk!")], "disk id 'no disk!'"),
        ([Add(server, HERE) for server in range(3, 80)], "MEMBERS_MAX"),
    ],
)
def test_what_cannot_be_is_named(changes: list[Change], complaint: str) -> None:
    """The guilty value, and what is allowed."""
    assert complaint in asked(Members([1, 2]), *changes)


def test_a_member_is_not_added_elsewhere_by_mistake() -> None:
    """That is a move, or another disk, and the message says so."""
    members = Members([1])
    asked(members, Add(2, HERE))
    assert "move it" in asked(members, Add(2, THERE))
    assert asked(members, Move(2, THERE)) == ""
    assert members.servers[2].address == THERE


def test_the_first_session_binds_a_disk_and_only_a_change_binds_another() -> None:
    """Binding what was unbound has no version; another disk has one."""
    members = Members([1, 2])
    members.bind(2, "aa")
    members.bind(2, "bb")
    members.bind(9, "cc")
    assert (members.version, members.disks()) == (0, {1: "", 2: "aa"})
    assert asked(members, Add(2, HERE, "bb")) == ""
    assert (members.version, members.servers[2]) == (1, Member(HERE, "bb"))


def test_not_every_server_changes_its_disk_at_once() -> None:
    """Nobody would hold what was written."""
    members = Members([1])
    members.bind(1, "aa")
    assert "one at least must hold" in asked(members, Add(1, HERE, "bb"))


@given(st.binary(max_size=60))
def test_whatever_a_body_holds_it_is_judged_and_never_raises(body: bytes) -> None:
    """It is in the merged log already: every server must get past it, alike."""
    members = Members([1, 2])
    before = members.pack()
    assert members.apply(body) != "" or members.pack() != before or members.version == 0


@given(st.dictionaries(st.integers(1, 2**32 - 1), st.sampled_from(["", "aa", "bb"]), min_size=1, max_size=9))
def test_a_set_survives_packing(disks: dict[int, str]) -> None:
    """Equal sets are equal bytes."""
    members = Members(disks)
    for server, disk in disks.items():
        members.bind(server, disk)
    again = Members.unpack(members.pack())
    assert (again.version, again.servers, again.pack()) == (0, members.servers, members.pack())


@given(st.binary(max_size=60))
def test_bytes_that_are_no_set_are_refused(packed: bytes) -> None:
    """By a ValueError, whatever they are."""
    try:
        members = Members.unpack(packed)
    except ValueError:
        return
    assert Members.unpack(members.pack()).servers == members.servers
