"""The applier of a simulated server: that of the product, with what it answers in sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from craft.applying import Applier
from craft.client_sessions import ClientResults
from craft.state_machine import Batch
from craft.testing.plan import Plan


class Watched(Applier):
    """The applier, with every batch's results in sight: those of other servers' commands as well."""

    def __init__(self, machine: Any) -> None:
        super().__init__(machine)
        self.seen: list[Sequence[Any] | None] = []

    def _call(self, batch: Batch) -> Sequence[Any] | None:
        results = super()._call(batch)
        self.seen.append(results)
        return results


def watched(plan: Plan, machine: Any) -> Watched:
    """One as a plan wants it: with little room for clients' results, perhaps."""
    applier = Watched(machine)
    if plan.remote is not None:
        applier.client_results = ClientResults(plan.remote.results_bytes_max)
    return applier
