"""The core of craft, driven by hand: three replicas of one Raft group, with a list as the network.

No clock, socket, disk or thread: the core is given time and messages, and says what must be kept and what
must be sent. Its contract stands in `craft/raft/__init__.py`. Run it: python examples/04_sans_io.py
"""

from __future__ import annotations

import random

from craft.limits import EngineLimits
from craft.messages import Message
from craft.raft import Raft, replication
from craft.types import Append, Configuration, EntryKind, HardState, Place, empty_recovered

SECOND = 1_000_000_000
MEMBERS = Configuration(voters=frozenset({1, 2, 3}))
Parcel = tuple[int, int, Message | Place]  # sender, receiver, and a message or a place known committed


class Server:
    """One replica and what a driver owes it: a disk, and the turn."""

    def __init__(self, server_id: int) -> None:
        self.id, self.announced = server_id, 0
        self.disk: list[tuple[Append | None, HardState]] = []
        blank, rng = empty_recovered(1).groups[0], random.Random(server_id)
        self.raft = Raft(0, server_id, MEMBERS, blank, limits=EngineLimits(), rng=rng, gone=set(), now=0)
        self.state = self.raft.state

    def append(self, kind: EntryKind, now: int, payload: bytes = b"") -> None:
        """Append an entry as the leader, stamped so that timestamps rise along the log."""
        timestamp = max(now, self.state.log.last_timestamp + 1)
        replication.append(self.state, kind, timestamp, payload)

    def turn(self, now: int) -> list[Parcel]:
        """Make durable first, then count, then speak. (A leader's appends need not wait, but they may.)"""
        state = self.state
        while True:
            if state.noop_due:  # a new leader commits what its predecessors left by an entry of its own
                state.noop_due = False
                self.append(EntryKind.EMPTY, now)
            if state.leads:
                replication.replicate(state, now)
            if (append := self.raft.take_append(len(self.disk) + 1)) is None and not state.hard_dirty:
                break
            self.disk.append((append, state.hard_state()))  # a real driver writes and syncs here
            state.hard_dirty, state.hard_write = False, len(self.disk)
            self.raft.persisted(len(self.disk), now)
        parcels: list[Parcel] = [(self.id, peer, message) for peer, message in state.outbox]
        state.outbox = []
        if state.leads and state.commit_index > self.announced:
            parcels += [(self.id, peer, state.commit_place) for peer in state.peers()]
            self.announced = state.commit_index
        return parcels

    def commands(self) -> list[bytes]:
        """What is committed here."""
        committed = self.state.log.entries[: self.state.commit_index]
        return [entry.payload for entry in committed if entry.kind is EntryKind.COMMAND]


def run(servers: dict[int, Server], now: int, cut_off: int | None = None) -> None:
    """Let everyone take turns and carry what they say until nobody has more to say; lose it at `cut_off`."""
    network = [parcel for server in servers.values() for parcel in server.turn(now)]
    while network:
        sender, receiver, content = network.pop(0)
        if cut_off in {sender, receiver}:
            continue
        if isinstance(content, Place):
            replication.learn_commit(servers[receiver].state, sender, content.index, content.term, now)
        else:
            servers[receiver].raft.step(sender, content, now)
        network += servers[receiver].turn(now)


def tell(title: str, servers: dict[int, Server]) -> None:
    """A title, then each server: role, term, entries in its log, and what is committed of them."""
    print(title)
    for server in servers.values():
        r, has = server.state, b" ".join(server.commands()).decode()
        print(f"  server {server.id}: {r.role.value}, term {r.term}, {r.log.last_index} entries: {has}")


def main() -> None:
    """Elect, replicate, lose a message, lose a leader, heal."""
    servers = {server_id: Server(server_id) for server_id in (1, 2, 3)}
    one, two, _ = servers.values()
    now = 1 * SECOND  # beyond every election timeout: whoever is told so asks for votes
    one.raft.tick(now)
    run(servers, now)
    one.append(EntryKind.COMMAND, now, b"a")
    run(servers, now)
    tell("Server 1 was elected and replicated a:", servers)

    one.append(EntryKind.COMMAND, now, b"b")
    run(servers, now, cut_off=3)
    tell("What was sent to server 3 got lost; two of three are enough for b:", servers)

    one.append(EntryKind.COMMAND, now, b"c")
    run(servers, now)
    tell("Server 3 refused c, for it had a gap, and was sent both:", servers)

    one.append(EntryKind.COMMAND, now, b"orphan")
    now = 3 * SECOND  # server 1 was not heard for two seconds
    two.raft.tick(now)
    run(servers, now, cut_off=1)
    two.append(EntryKind.COMMAND, now, b"d")
    run(servers, now, cut_off=1)
    tell("Server 1 is cut off with an entry that nobody else has; the others go on:", servers)

    replication.link_restored(two.state, 1)  # a driver says so when it has connected again
    run(servers, now)
    tell("Healed: server 1 follows, and its orphan was cut from its log:", servers)
    assert [server.commands() for server in servers.values()] == [[b"a", b"b", b"c", b"d"]] * 3


if __name__ == "__main__":
    main()
