"""Your own state machine in a simulated cluster: crashes, cut links, bad disks, wrong clocks and replays.

Run it: python examples/05_simulate_mine.py
"""

from __future__ import annotations

from random import Random

import craft
from craft.testing import Violated, simulate

ROWS, GUESTS = "ABC", ("ann", "bob", "cid")


class Theatre:
    """Seats that are booked and given back; `book A1 ann` and `free A1 ann` answer whose the seat is then."""

    def __init__(self) -> None:
        self.guests: dict[str, str] = {}

    def apply_batch(self, batch: craft.Batch) -> list[str | None]:
        """One answer a command."""
        return [self.apply(*command.decode().split()) for command in batch]

    def apply(self, verb: str, seat: str, guest: str) -> str | None:
        """Who comes first gets the seat; only who has it can give it back."""
        if verb == "book":
            return self.guests.setdefault(seat, guest)
        if self.guests.get(seat) == guest:
            del self.guests[seat]
        return self.guests.get(seat)

    def query(self, query: bytes) -> str | None:
        """Whose a seat is."""
        return self.guests.get(query.decode())


class Careless(Theatre):
    """Tells the free seats as well, in the order of a set of strings: another one in each process."""

    def apply(self, verb: str, seat: str, guest: str) -> str | None:
        """`ann; free: B1,A1`."""
        free = {"A1", "B1", "C1"} - self.guests.keys()
        return f"{super().apply(verb, seat, guest)}; free: {','.join(free)}"


def command(rng: Random) -> bytes:
    """Draws from nothing but `rng`, so that a seed repeats a run."""
    return f"{rng.choice(('book', 'free'))} {rng.choice(ROWS)}1 {rng.choice(GUESTS)}".encode()


if __name__ == "__main__":  # the machine is replayed in other processes, which import this file
    print(simulate(Theatre, commands=command, queries=lambda rng: f"{rng.choice(ROWS)}1".encode(), seeds=8))
    try:
        simulate(Careless, commands=command, seeds=3)
    except Violated as violated:
        print(violated)
