"""The engine as a test talks to it: commands at a time, one position each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import craft
from examples.kv.machine import NS_PER_MS, KeyValue, pack_command, pack_transaction


class Store:
    """A machine that is given one command a batch."""

    def __init__(self, now: int = 1_000) -> None:
        self.machine = KeyValue()
        self.now = now
        self.position = 0

    def apply(self, *commands: bytes) -> list[Any]:
        """A batch of packed commands."""
        self.position += 1
        batch = craft.Batch(self.position, self.now * NS_PER_MS, list(commands))
        return list(self.machine.apply_batch(batch))

    def ask(self, *args: bytes | str | int) -> Any:
        """A command through the log."""
        return self.apply(pack_command(spelled(args)))[0]

    def read(self, *args: bytes | str | int) -> Any:
        """A command beside the log."""
        return self.machine.read(spelled(args), self.now)

    def transact(
        self, *commands: Sequence[bytes | str | int], watched: Sequence[tuple[bytes, int]] = ()
    ) -> Any:
        """A transaction through the log."""
        return self.apply(pack_transaction([spelled(args) for args in commands], watched))[0]

    def version(self, key: bytes) -> int:
        return self.machine.version(key, self.now)

    def restored(self) -> Store:
        """Another server that begins with this one's snapshot."""
        other = Store(self.now)
        other.machine.restore(list(self.machine.snapshot()()))
        other.position = self.position
        return other


def spelled(args: Sequence[bytes | str | int]) -> list[bytes]:
    """Arguments as bytes."""
    return [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
