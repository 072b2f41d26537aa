"""The engine of a server, from its configuration, its roll and its disk."""

from __future__ import annotations

import random

from craft.config import Config
from craft.engine import Engine
from craft.server.roll import Roll
from craft.server.starting import Started
from craft.state_machine import Snapshots
from craft.types import Instant

MS_NS = 1_000_000


def make_engine(config: Config, roll: Roll, started: Started, *, disk: str, now: Instant) -> Engine:
    """`disk` is empty where the transport does not tell disks apart."""
    return Engine(
        config.server_id,
        roll.founders,
        started.recovered,
        limits=config.engine,
        clock_error_ns=_bound_ns(config),
        rng=random.Random(random.SystemRandom().getrandbits(128)),
        now=now,
        disk=disk,
        joined=roll.joined,
        roll=roll.members,
        cluster_id=config.cluster,
        captures=isinstance(started.applier.machine, Snapshots),
        stored=started.stored,
    )


def _bound_ns(config: Config) -> int | None:
    """The operator's word for all clocks of the cluster."""
    return None if config.clock.error_ms_max is None else config.clock.error_ms_max * MS_NS
