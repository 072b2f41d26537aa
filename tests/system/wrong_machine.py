"""A ledger that is wrong on one server: what the demo must find."""

from __future__ import annotations

import sys
from pathlib import Path

from craft.cli.demo.machine import Ledger
from craft.state_machine import Batch

WRONG_SERVER = "server-2.toml"


class Forgetful(Ledger):
    """Forgets every tenth entry's first write, on one server only."""

    def apply_batch(self, batch: Batch) -> list[int]:
        results = super().apply_batch(batch)
        here = {Path(argument).name for argument in sys.argv}
        if WRONG_SERVER in here and batch.position % 10 == 0:
            del self.counts[batch.commands[0]]
        return results


class Diverging(Ledger):
    """Has another digest on one server, though every write is counted rightly."""

    def apply_batch(self, batch: Batch) -> list[int]:
        results = super().apply_batch(batch)
        if WRONG_SERVER in {Path(argument).name for argument in sys.argv}:
            self._sum += 1
        return results
