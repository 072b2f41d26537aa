"""Bad luck, one function a kind: it begins, and returns how it ends.

Knows: what to break. Must not know: when (the swarm draws it).

Invariants
- What a fault chooses depends on its own `choice` alone, and on the world as it finds it.
- Faults overlap: each ends what it began and nothing else.
- What a server cannot come back from (`Losses`) never befalls more than a minority, or the cluster could not
  survive by design; beyond that such a fault does nothing.
"""

from __future__ import annotations

import random

from craft.testing.faults.base import Begin, End
from craft.testing.faults.clocks import CLOCKS
from craft.testing.faults.disks import DISKS, LOSSES, RESERVE, STALLS
from craft.testing.faults.links import ALOOF, FRAMES, LINKS
from craft.testing.faults.servers import SERVERS
from craft.testing.faults.sets import SETS
from craft.testing.faults.snapshots import DECAY
from craft.testing.faults.tails import AMNESIA, TAILS
from craft.testing.faults.wishes import WISHES
from craft.testing.plan import Fault
from craft.testing.world import World
from craft.types import ServerId

__all__ = [
    "ALOOF",
    "AMNESIA",
    "CLOCKS",
    "DECAY",
    "DISKS",
    "FAULTS",
    "FRAMES",
    "LINKS",
    "LOSSES",
    "RESERVE",
    "SERVERS",
    "SETS",
    "STALLS",
    "TAILS",
    "WISHES",
    "begin",
]

LATER = {**TAILS, **RESERVE, **DECAY, **WISHES, **AMNESIA, **STALLS, **ALOOF, **SETS}
FAULTS: dict[str, Begin] = {**LINKS, **FRAMES, **SERVERS, **DISKS, **LOSSES, **CLOCKS, **LATER}
"""Every kind of bad luck."""


def begin(world: World, fault: Fault, server: ServerId | None = None) -> End | None:
    """A fault begins. Returns what ends it, or None where there is nothing to end."""
    rng = random.Random(fault.choice)
    world.faults_begun[fault.kind] += 1
    world.say("fault", f"#{fault.number} {fault.kind}" + (f" at server {server}" if server else ""))
    world.trace.fold(world.time, fault.number)
    return FAULTS[fault.kind](world, rng, server)
