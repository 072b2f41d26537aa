"""The swarm's part about clients that read what they have seen, or newer, and ask nobody else."""

from __future__ import annotations

import random
from dataclasses import replace

from craft.testing.plan import Plan

WITH_SESSION_READS = 0.15
"""The share of runs in which some reads are such."""


def with_session_reads(rng: random.Random, plan: Plan) -> Plan:
    """Some reads, or all, name the position up to which their client was answered."""
    if rng.random() >= WITH_SESSION_READS:
        return plan
    return replace(plan, seen=rng.choice((0.3, 1.0)))
