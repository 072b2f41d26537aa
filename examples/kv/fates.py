"""What became of a command that has no answer, as the error that a client sees.

Knows: craft's outcomes. Must not know: protocols.
"""

from __future__ import annotations

import craft
from examples.kv.replies import TOO_LARGE, Reply, error

REJECTED = "REJECTED no effect, try again"
UNKNOWN = "UNKNOWN it may or may not take effect"
APPLIED = "APPLIED it took effect, its answer is lost"
"""How such errors begin. The first word is what a client's library calls the error's code."""


def told(outcome: craft.CraftError) -> Reply:
    """The error reply: rejected, unknown or applied, and why."""
    return error(f"{fate(outcome)}: {outcome}")


def unseen(outcome: craft.CraftError) -> Reply:
    """The error reply to what only reads: whatever kept it from being answered, it took no effect."""
    return error(f"{REJECTED}: {outcome}")


def fate(outcome: craft.CraftError) -> str:
    """What it means for the data."""
    if isinstance(outcome, craft.CommandTooLarge):
        return TOO_LARGE
    if isinstance(outcome, craft.Rejected):
        return REJECTED
    return APPLIED if isinstance(outcome, craft.ResultLost) else UNKNOWN
