"""Snapshots that decay, in runs that take them (PROTOCOL 7).

Invariants
- What is compacted everywhere is left on somebody: of one server at a time every snapshot is gone, and only
  while each of the others has one that it could begin from. Where the members change, one server may be all
  that is left of a cluster: it keeps a snapshot that it could begin from.
"""

from __future__ import annotations

import random
from contextlib import suppress

from craft.errors import DamagedSnapshot
from craft.storage.snapshots import check_file, id_of
from craft.testing.disk import Crash, SimulatedDisk
from craft.testing.faults.base import Begin, victim
from craft.testing.files import SimulatedFiles
from craft.testing.plan import MS
from craft.testing.world import World
from craft.types import Head, ServerId


def _flip_snapshot(world: World, rng: random.Random, server: ServerId | None) -> None:
    """A bit of a snapshot's file changes. Two are kept, and peers have others."""
    i = victim(world, rng, server)
    if i is not None and (not world.operator.active or _beginnings(world.disks[i]) > 1):
        world.say("fault", world.disks[i].files.flip(rng) or "no snapshot yet")


def _lose_snapshots(world: World, rng: random.Random, server: ServerId | None) -> None:
    """A server starts again with its logs and its votes, and nothing that they could be applied to."""
    i = victim(world, rng, server)
    others = [j for j in world.ids if j != i]
    if i is None or not others or not all(_beginnings(world.disks[j]) for j in others):
        return
    files = world.disks[i].files
    for name in _heads(files):
        files.flip(rng, ending=name)
        world.say("fault", f"server {i}: {name} can be read no more")
    world.crash(i, rng.choice(list(Crash)))
    world.start_later(i, rng.choice((1, 20, 400)) * MS)


def _beginnings(disk: SimulatedDisk) -> int:
    """How many snapshots are on it behind no cut of which anything is compacted?"""
    starts = [log.start.place.index for log in disk.written.logs]
    return sum(
        all(cut.place.index >= start for cut, start in zip(head.cuts, starts, strict=True))
        for head in _heads(disk.files).values()
    )


def _heads(files: SimulatedFiles) -> dict[str, Head]:
    """Of each snapshot that can be read to its end, by the name of its file."""
    found = {}
    for name in files.names():
        if id_of(name) is not None:
            with suppress(DamagedSnapshot):
                found[name] = check_file(files, name)
    return found


DECAY: dict[str, Begin] = {"flip_snapshot": _flip_snapshot, "lose_snapshots": _lose_snapshots}
"""Drawn behind all else, from streams of their own."""
