"""Whose disk is let in under which id (PROTOCOL 8)."""

from __future__ import annotations

from craft.server.doors import Doors
from craft.storage import Identity, new_disk_id, origin, origin_of
from craft.storage.memory import MemoryStorage

OLD, NEW = "0" * 32, "1" * 32


def doors() -> tuple[Doors, list[tuple[int, str]]]:
    """A door, and who came in by it."""
    made, met = Doors(MemoryStorage(Identity("c", 1, "2" * 32, 1))), list[tuple[int, str]]()
    made.on_met = lambda server, disk: met.append((server, disk))
    return made, met


def test_the_first_disk_under_an_id_is_the_only_one() -> None:
    """A wiped server is refused, and told what to do."""
    door, met = doors()
    assert door.check(2, OLD) is None
    assert f"craft members add 2 ADDRESS --disk {NEW}" in str(door.check(2, NEW))
    assert met == [(2, OLD)]


def test_the_wanted_set_names_another() -> None:
    """Then the new disk comes in, and the old one does not."""
    door, met = doors()
    door.check(2, OLD)
    door.name({2: NEW})
    assert door.check(2, NEW) is None
    assert door.check(2, OLD) is not None
    assert met == [(2, OLD), (2, NEW)]


def test_servers_restored_to_different_states_never_meet() -> None:
    """They would apply the same commands to different states, and nothing else would tell."""
    ours, theirs = (new_disk_id(origin(position, b"digest")) for position in (70, 71))
    door, same = Doors(MemoryStorage(Identity("c", 1, ours, 1))), new_disk_id(origin_of(ours))
    assert len(ours) == len(same) == 32
    assert "another backup than this one, or to another position" in str(door.check(2, theirs))
    door.name({2: theirs})
    assert "Restore all servers from the same backup" in str(door.check(2, theirs))
    assert door.check(3, same) is None
    assert door.check(4, new_disk_id()) is None
