"""A table with N replicas of one group on it: messages, disks and time move only when the test says so.

The harness plays the driver's part of `craft/raft/__init__.py`: it makes durable, releases what waited for
it, carries messages, lets time pass and takes the stamps. Nothing happens by itself, so a test can stop a
write, a message or a clock anywhere.

Checked after every step, whatever the test is about
- each replica's own invariants (`craft.raft.invariants`);
- election safety, log matching, leader completeness, one history of committed entries (Raft, figure 3);
- nothing leaves that is not durable: a vote, an acknowledgement, a term (PROTOCOL 1). One vote a term and
  server, over crashes too.

Notation: `2@5` is the entry of term 2 at index 5, `2@5:x` the same with command x.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from craft.clock import stamper
from craft.limits import EngineLimits
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Cleared,
    Doubted,
    FetchResult,
    LeaderPersisted,
    Message,
    RequestVote,
    RequestVoteResult,
    SuspectAccepted,
    Suspected,
    TimeoutNow,
)
from craft.raft import Raft, RaftState, Role, election, invariants, membership, replication, suspicion
from craft.types import (
    NOWHERE,
    Append,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    Place,
    RecoveredGroup,
    Term,
    is_command,
    make_entry,
    pack_configuration,
    unpack_configuration,
)

M = TypeVar("M")
MS = 1_000_000
GROUP = 0
ROUNDS_MAX = 500
"""A cluster that still talks after so many rounds of `settle` will talk for ever."""


# -- notation --------------------------------------------------------------------------------------


def entry(text: str) -> Entry:
    """`2@5`, `2@5:x` or `2@5[…]`. Its stamp follows from its place, so it is the same entry in every log."""
    match = re.fullmatch(r"(\d+)@(\d+)(?::(.+)|\[(.+)\])?", text)
    assert match is not None, text
    term, index = int(match[1]), int(match[2])
    kind, payload = EntryKind.COMMAND if match[3] else EntryKind.EMPTY, (match[3] or "").encode()
    if match[4]:
        kind, payload = EntryKind.CONFIGURATION, pack_configuration(configuration(match[4]))
    return make_entry(
        GROUP, index=index, term=term, timestamp=term * 1000 + index, kind=kind, payload=payload
    )


def configuration(text: str) -> Configuration:
    """`v2:3,4,5<1,2,3+6;4=b`: version 2, voters, outgoing, learners, disks; only voters are needed."""
    match = re.fullmatch(r"(?:v(\d+):)?([\d,]*)(?:<([\d,]+))?(?:\+([\d,]+))?((?:;\d+=\w+)*)", text)
    assert match is not None, text
    parts = [frozenset(map(int, filter(None, (match[part] or "").split(",")))) for part in (2, 3, 4)]
    disks = [pair.split("=") for pair in match[5].split(";") if pair]
    bound = tuple((int(server), disk) for server, disk in disks)
    return Configuration(parts[0], parts[1], parts[2], int(match[1] or 0), bound)


def show_configuration(c: Configuration) -> str:
    voters, outgoing, learners = (",".join(map(str, sorted(part))) for part in c[:3])
    disks = "".join(f";{server}={disk}" for server, disk in c.disks)
    return (
        f"v{c.version}:{voters}{'<' if outgoing else ''}{outgoing}{'+' if learners else ''}{learners}{disks}"
    )


def entries(text: str) -> tuple[Entry, ...]:
    """Several entries, separated by spaces."""
    return tuple(map(entry, text.split()))


def show_entry(e: Entry) -> str:
    if e.kind is EntryKind.CONFIGURATION:
        return f"{e.term}@{e.index}[{show_configuration(unpack_configuration(e.payload))}]"
    command = e.payload.decode()
    return f"{e.term}@{e.index}:{command}" if command else f"{e.term}@{e.index}"


def show_entries(found: Iterable[Entry]) -> str:
    return " ".join(map(show_entry, found))


def show_message(m: Message) -> str:
    """A message in a line, without its group."""
    match m:
        case RequestVote():
            name = "pre-vote" if m.pre else "vote"
            flag = " (hand-over)" if m.transfer else ""
            return f"{name}? t{m.term} last {m.last_term}@{m.last_index}{flag}"
        case RequestVoteResult():
            flag = " (suspect)" if m.suspect else ""
            return (
                f"{'pre-vote' if m.pre else 'vote'} {'granted' if m.granted else 'refused'} t{m.term}{flag}"
            )
        case AppendEntries():
            what = show_entries(m.entries) or "probe"
            return f"append t{m.term} after {m.prev_term}@{m.prev_index}: {what} (commit {m.commit_index})"
        case AppendAccepted():
            return f"accepted t{m.term} durable {m.match_index} received {m.verified_index}"
        case SuspectAccepted() | Suspected() | Cleared() | Doubted():
            return show_suspicion(m)
        case AppendRejected():
            hint = f"{m.hint_term}@{m.hint_index}"
            return f"rejected t{m.term} no match at {m.rejected_index}, hint {hint}"
        case LeaderPersisted():
            return f"leader's log durable t{m.term} up to {m.index}"
        case TimeoutNow():
            return f"stand now t{m.term}"
        case FetchResult():
            return f"committed: {show_entries(m.entries)}"
        case _:
            raise AssertionError(f"the core does not know {m}")


def show_suspicion(m: SuspectAccepted | Suspected | Cleared | Doubted) -> str:
    match m:
        case SuspectAccepted():
            return f"accepted t{m.term} durable {m.match_index} received {m.verified_index} (suspect)"
        case Suspected():
            return f"what clears me? t{m.term}"
        case Cleared():
            return f"cleared by {m.term}@{m.index}"
        case Doubted():
            return f"doubted t{m.term}: {m.index_term}@{m.index} was counted"


# -- one server ------------------------------------------------------------------------------------


class Disk:
    """What storage keeps of one replica: a plain list and a tuple. A crash loses what was never applied."""

    def __init__(self, log: tuple[Entry, ...] = (), hard_state: HardState | None = None) -> None:
        self.entries = list(log)
        self.suspicion = ""
        self.hard_state = hard_state or HardState(log[-1].term if log else 0, None, 0)

    def lose(self, count: int, reason: str) -> None:
        """The last synced entries are gone, and it is known that some may be."""
        del self.entries[len(self.entries) - count :]
        self.suspicion = reason

    def apply(
        self, append: Append | None, hard_state: HardState | None, suspicion: str | None = None
    ) -> None:
        if append is not None:
            if append.truncate_from:
                del self.entries[append.truncate_from - 1 :]
            for added in append.entries:
                assert added.index == len(self.entries) + 1, "a hole on disk"
                self.entries.append(added)
        self.hard_state = hard_state or self.hard_state
        self.suspicion = self.suspicion if suspicion is None else suspicion

    def recovered(self) -> RecoveredGroup:
        places = [Place(e.term, e.index) for e in self.entries if is_command(e.kind)]
        last_command = places[-1] if places else NOWHERE
        changes = tuple(e for e in self.entries if e.kind is EntryKind.CONFIGURATION)
        hard = self.hard_state._replace(commit=min(self.hard_state.commit, len(self.entries)))
        return RecoveredGroup(
            hard,
            NOWHERE,
            0,
            tuple(self.entries),
            last_command,
            configurations=changes,
            suspicion=self.suspicion,
        )


class PendingWrite(NamedTuple):
    """Handed to the disk, not yet durable."""

    number: int
    append: Append | None
    hard_state: HardState | None
    suspicion: str | None


class Envelope(NamedTuple):
    """A message on its way."""

    sender: int
    to: int
    message: Message


@dataclass
class Replica:
    """One server's replica, its disk, and what waits for the disk."""

    raft: Raft
    disk: Disk
    writes: deque[PendingWrite] = field(default_factory=deque)
    held: deque[tuple[int, Envelope]] = field(default_factory=deque)
    next_write: int = 1
    durable: int = 0

    @property
    def state(self) -> RaftState:
        return self.raft.state


# -- the table -------------------------------------------------------------------------------------


class Cluster:
    """Replicas of one group, the wire between them, and the one clock of the test."""

    def __init__(
        self,
        servers: int = 3,
        *,
        logs: Mapping[int, str] | None = None,
        hard_states: Mapping[int, HardState] | None = None,
        configuration: Configuration | None = None,
        limits: EngineLimits | None = None,
        seed: int = 0,
    ) -> None:
        self.ids = list(range(1, servers + 1))
        self.configuration = configuration or Configuration(frozenset(self.ids))
        self.limits = limits or EngineLimits()
        self.rng = random.Random(seed)
        self.time = 1000 * MS
        self.clocks: dict[int, Callable[[], int]] = {}
        self.wire: list[Envelope] = []
        self.cuts: set[tuple[int, int]] = set()
        self.gone: dict[int, set[int]] = {i: set() for i in self.ids}
        self.disk_ids: dict[int, str] = {i: f"disk{i}" for i in self.ids}
        self.replicas: dict[int, Replica] = {}
        self.events: list[str] = []  # a transcript, for the golden scripts
        self._shown: dict[int, str] = {}
        self._incarnations = itertools.count(1)
        self._leaders: dict[Term, int] = {}
        self._votes: dict[tuple[int, Term], int] = {}
        self._committed: list[Entry] = []
        self._checked: dict[int, Index] = {}
        self._disks = {
            i: Disk(entries((logs or {}).get(i, "")), (hard_states or {}).get(i)) for i in self.ids
        }
        for i in self.ids:
            self.restart(i)

    # -- looking ------------------------------------------------------------------------------------

    def state(self, i: int) -> RaftState:
        return self.replicas[i].state

    def disk(self, i: int) -> Disk:
        return self._disks[i]

    def log(self, i: int) -> str:
        """The whole log: what has left memory is read from disk."""
        log = self.state(i).log
        return show_entries([*self._disks[i].entries[: log.offset.index], *log.entries])

    def leaders(self) -> list[int]:
        return [i for i, replica in sorted(self.replicas.items()) if replica.state.leads]

    def sent(self, kind: type[M], *, sender: int | None = None, to: int | None = None) -> list[M]:
        """What is on the wire, of one kind."""
        return [
            envelope.message
            for envelope in self.wire
            if isinstance(envelope.message, kind)
            and sender in (None, envelope.sender)
            and to in (None, envelope.to)
        ]

    def show(self, i: int) -> str:
        """A replica in a line."""
        if i not in self.replicas:
            return f"{i} is down, on disk: {show_entries(self._disks[i].entries) or 'nothing'}"
        r = self.state(i)
        vote = f" vote {r.vote}" if r.vote else ""
        flag = " suspect" if r.suspect else ""
        ends = f"commit {r.commit_index} durable {r.log.persisted} log {self.log(i) or 'empty'}"
        return f"{i}{flag} {r.role.value} t{r.term}{vote} {ends}"

    # -- expecting ----------------------------------------------------------------------------------

    def expect_leader(self, i: int, *, term: Term | None = None) -> None:
        assert self.leaders() == [i], f"leaders: {self.leaders()}"
        assert term is None or self.state(i).term == term

    def expect_role(self, i: int, role: Role, *, term: Term | None = None) -> None:
        assert self.state(i).role is role, self.show(i)
        assert term is None or self.state(i).term == term, self.show(i)

    def expect_log(self, i: int, text: str) -> None:
        assert self.log(i) == text

    def expect_commit(self, index: Index, *ids: int) -> None:
        """These replicas (none named: all) know this commit index."""
        found = {i: self.state(i).commit_index for i in ids or sorted(self.replicas)}
        assert set(found.values()) == {index}, found

    # -- what a leader is asked to do ----------------------------------------------------------------

    def propose(self, i: int, command: str) -> Entry:
        """Append a command as the leader: stamped by the harness, sent at once, not yet durable."""
        appended = self._append(i, EntryKind.COMMAND, command)
        self._turn(i)
        return appended

    def _append(self, i: int, kind: EntryKind, command: str = "", payload: bytes = b"") -> Entry:
        r = self.state(i)
        clock = self.clocks.get(i, lambda: self.time // MS)()
        timestamp = stamper.stamp(clock, last=r.log.last_timestamp, floor=0)
        return replication.append(r, kind, timestamp, payload or command.encode())

    def change(self, i: int, to: str) -> Entry:
        """Append a configuration as the leader, which must be allowed to."""
        assert membership.may_change(self.state(i)), self.show(i)
        appended = self._append(i, EntryKind.CONFIGURATION, payload=pack_configuration(configuration(to)))
        self._turn(i)
        return appended

    def step_towards(self, i: int, goal: str, *, ready: bool, done: bool = False) -> str:
        """The leader takes the next step to a wanted set (`v2:1,2,3;2=b`), if there is one now."""
        wanted = configuration(goal)
        disks = {server: dict(wanted.disks).get(server, f"disk{server}") for server in wanted.voters}
        if not membership.may_change(self.state(i)):
            return "not now"
        step = membership.next_step(
            self.state(i).configuration,
            membership.Goal(wanted.version, disks),
            met=self.disk_ids,
            is_ready=lambda _: ready,
            may_drop=done,
        )
        if step is None:
            return "nothing to do"
        self.change(i, show_configuration(step))
        return show_configuration(step)

    def transfer(self, i: int, target: int) -> None:
        election.transfer(self.state(i), target, self.time)
        self._turn(i)

    def campaign(self, i: int) -> None:
        """The election timeout of `i` runs out now."""
        self.state(i).election_deadline = self.time
        self.replicas[i].raft.tick(self.time)
        self._turn(i)

    def elect(self, i: int) -> None:
        """Let leases end, let `i` stand, and settle; it must win."""
        self.elapse(self.limits.election_timeout_ms_max)
        self.campaign(i)
        self.settle()
        self.expect_leader(i)

    # -- time ---------------------------------------------------------------------------------------

    def elapse(self, ms: int) -> None:
        """Time passes and nobody looks at a clock: leases end, deadlines are not noticed yet."""
        self.time += ms * MS

    def tick(self, *ids: int) -> None:
        for i in ids or sorted(self.replicas):
            self.replicas[i].raft.tick(self.time)
            self._turn(i)

    def heartbeat(self, i: int) -> None:
        """The engine's frames: a leader is alive and tells its commit; its followers say that they heard."""
        r = self.state(i)
        for peer in sorted(r.progress):
            if not self._linked(i, peer):
                continue
            follower = self.state(peer)
            if r.term < follower.term:
                self._refuse_heartbeat(i, peer)
                return
            if r.term == follower.term and follower.leader_id == i:
                election.heard_leader(follower, self.time)
            else:
                replication.follow(follower, i, r.term, self.time)
            term, index = r.commit_place
            replication.learn_commit(follower, i, index, term, self.time)
            if self._linked(peer, i):
                r.progress[peer].active_at = self.time
            self._turn(peer)

    def _refuse_heartbeat(self, i: int, peer: int) -> None:
        if self._linked(peer, i):
            election.become_follower(self.state(i), self.state(peer).term, None, self.time)
            self._turn(i)

    def live(self, ms: int) -> None:
        """Time passes as it does: heartbeats, ticks, syncs, and every message arrives where it can."""
        interval = self.limits.heartbeat_interval_ms
        for _ in range(0, ms, interval):
            self.elapse(interval)
            for i in self.leaders():
                if self.state(i).leads:
                    self.heartbeat(i)
            self.tick()
            self.settle()

    # -- disks --------------------------------------------------------------------------------------

    def write(self, i: int) -> PendingWrite | None:
        """Hand the disk what there is to write; it is not durable yet."""
        replica, r = self.replicas[i], self.state(i)
        number = replica.next_write
        append = replica.raft.take_append(number)
        suspected = replica.raft.take_suspicion(number)
        if append is None and suspected is None and not r.hard_dirty:
            return None
        if r.hard_dirty:
            r.hard_dirty, r.hard_write = False, number
        pending = PendingWrite(number, append, r.hard_state(), suspected)
        replica.writes.append(pending)
        replica.next_write += 1
        return pending

    def sync(self, i: int) -> None:
        """The oldest write under way becomes durable; what waited for it leaves."""
        replica = self.replicas[i]
        pending = replica.writes.popleft()
        replica.disk.apply(pending.append, pending.hard_state, pending.suspicion)
        replica.durable = pending.number
        replica.raft.persisted(pending.number, self.time)
        while replica.held and replica.held[0][0] <= replica.durable:
            self._leave(replica.held.popleft()[1])
        self._turn(i)

    def persist(self, *ids: int) -> None:
        """Write and sync everything that these (none named: all) have to make durable."""
        for i in ids or sorted(self.replicas):
            self.write(i)
            while self.replicas[i].writes:
                self.sync(i)

    def evict(self, i: int) -> None:
        """Everything committed and durable leaves memory; it stays on disk."""
        log, commit = self.state(i).log, self.state(i).commit_index
        log.evict(min(commit, log.persisted), bytes_max=0)
        self._turn(i)

    def crash(self, i: int) -> None:
        """The power goes: memory, unsynced writes and what waited for them are lost."""
        del self.replicas[i]
        self.wire = [envelope for envelope in self.wire if envelope.to != i]
        self.events.append(f"{i} crashed")

    def ask(self, i: int) -> None:
        """As the engine has every suspect do with its heartbeats."""
        suspicion.ask(self.state(i))
        self._turn(i)

    def restart(self, i: int) -> None:
        """Start from what the disk has kept."""
        raft = Raft(
            GROUP,
            i,
            self.configuration,
            self._disks[i].recovered(),
            limits=self.limits,
            rng=random.Random(self.rng.getrandbits(64)),
            gone=self.gone[i],
            now=self.time,
            disks=self.disk_ids,
        )
        raft.state.incarnation = next(self._incarnations)
        self.replicas[i] = Replica(raft, self._disks[i])
        self._checked[i] = 0
        self._shown[i] = self._role(i)
        self._check(i)

    def wipe(self, i: int) -> None:
        """The directory is gone; the server comes back under its id with an empty disk, which has its own."""
        self.crash(i)
        self._disks[i] = Disk()
        self.disk_ids[i] += "b"
        self.restart(i)

    # -- the wire -----------------------------------------------------------------------------------

    def cut(self, a: int, b: int) -> None:
        """Nothing passes between two servers any more, in either direction; what is on its way is lost."""
        self.cut_one_way(a, b)
        self.cut_one_way(b, a)

    def cut_one_way(self, sender: int, to: int) -> None:
        self.cuts.add((sender, to))
        self.wire = [envelope for envelope in self.wire if self._linked(envelope.sender, envelope.to)]

    def partition(self, *ids: int) -> None:
        """These servers and the others do not hear each other."""
        for a, b in itertools.product(ids, set(self.ids) - set(ids)):
            self.cut(a, b)

    def heal(self) -> None:
        """All links are back, as new connections: what was in flight is known to be lost."""
        self.cuts.clear()
        for i in self.leaders():
            for peer in self.state(i).peers():
                replication.link_restored(self.state(i), peer)
            self._turn(i)

    def reconnect(self, i: int, peer: int) -> None:
        """A new connection from `i` to `peer`, which has started again, say."""
        replication.link_restored(self.state(i), peer)
        self._turn(i)

    def _linked(self, sender: int, to: int) -> bool:
        return (sender, to) not in self.cuts and sender in self.replicas and to in self.replicas

    def step(self, sender: int, to: int, message: Message) -> None:
        """`to` takes a message, whether or not it was ever sent."""
        self.replicas[to].raft.step(sender, message, self.time)
        self._turn(to)

    def deliver(self, *, sender: int | None = None, to: int | None = None) -> list[Envelope]:
        """Everything that is on the wire now (from, to: only that) arrives; answers stay on the wire."""
        arriving = self.take(sender=sender, to=to)
        for envelope in arriving:
            if envelope.to in self.replicas:
                self.step(envelope.sender, envelope.to, envelope.message)
        return arriving

    def take(self, *, sender: int | None = None, to: int | None = None) -> list[Envelope]:
        """Take messages off the wire: to lose them, or to let them arrive late, twice or out of order."""
        taken: list[Envelope] = []
        left: list[Envelope] = []
        for envelope in self.wire:
            wanted = sender in (None, envelope.sender) and to in (None, envelope.to)
            (taken if wanted else left).append(envelope)
        self.wire = left
        return taken

    def deliver_these(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            self.step(*envelope)

    def settle(self) -> None:
        """Every disk syncs and every message arrives, until there is nothing left to do."""
        for _ in range(ROUNDS_MAX):
            self.persist()
            if not self.wire:
                return
            self.deliver()
        raise AssertionError("the replicas never come to rest")

    # -- the driver's part --------------------------------------------------------------------------

    def _turn(self, i: int) -> None:
        """What the engine does for a replica in a turn: the no-op, replication, the outbox. No write."""
        r = self.state(i)
        if r.noop_due:
            r.noop_due = False
            self._append(i, EntryKind.EMPTY)
        elif r.clearing_due:
            self._append(i, EntryKind.EMPTY)
        r.clearing_due = False
        if r.leads:
            self._replicate(i)
        self._note(i)
        outbox, r.outbox = r.outbox, []
        replica = self.replicas[i]
        write = replica.next_write if r.hard_dirty else r.hard_write
        for to, message in outbox:
            self._check_acknowledged(i, to, message)
            if write > replica.durable:
                replica.held.append((write, Envelope(i, to, message)))
                self.events.append(f"{i} ⇢ {to}  {show_message(message)}  (waits for the disk)")
            else:
                self._leave(Envelope(i, to, message))
        self._check(i)

    def _replicate(self, i: int) -> None:
        r = self.state(i)
        while loads := replication.replicate(r, self.time):
            for peer, next_index in loads:
                self._send_from_disk(r, peer, next_index)

    def _send_from_disk(self, r: RaftState, peer: int, next_index: Index) -> None:
        found = self._disks[r.me].entries[: r.log.offset.index]
        prev_term = found[next_index - 2].term if next_index > 1 else 0
        r.progress[peer].loading = False
        replication.send_entries(r, peer, prev_term, tuple(found[next_index - 1 :]), self.time)

    def _leave(self, envelope: Envelope) -> None:
        self._check_promise(envelope)
        lost = not self._linked(envelope.sender, envelope.to)
        arrow, mark = ("↛", "  (lost)") if lost else ("→", "")
        self.events.append(f"{envelope.sender} {arrow} {envelope.to}  {show_message(envelope.message)}{mark}")
        if not lost:
            self.wire.append(envelope)

    def _role(self, i: int) -> str:
        return f"{self.state(i).role.value} t{self.state(i).term}"

    def _note(self, i: int) -> None:
        role = self._role(i)
        if role != self._shown[i]:
            self.events.append(f"{i} {self._shown[i]} ⇒ {role}")
            self._shown[i] = role

    # -- what must hold whatever happens -------------------------------------------------------------

    def _check_promise(self, envelope: Envelope) -> None:
        """PROTOCOL 1: what leaves is durable. (A vote that a later term overtook on its way to the disk is
        kept by that term.)
        """
        sender, to, m = envelope
        hard = self._disks[sender].hard_state
        match m:
            case RequestVote(pre=False):
                assert hard.term > m.term or hard[:2] == (m.term, sender), "own vote not durable"
                self._vote(sender, m.term, sender)
            case RequestVoteResult(pre=False, granted=True):
                assert hard.term > m.term or hard[:2] == (m.term, to), "vote not durable"
                self._vote(sender, m.term, to)
            case AppendEntries() | AppendAccepted() | SuspectAccepted() | AppendRejected() | TimeoutNow():
                assert m.term <= hard.term, "a term left before it was durable"
            case _:
                pass

    def _check_acknowledged(self, i: int, to: int, m: Message) -> None:
        """What is acknowledged is on disk here and in that leader's log (later a new leader may cut it)."""
        if not isinstance(m, AppendAccepted | SuspectAccepted):
            return
        log, kept = self.state(i).log, self._disks[i].entries
        assert m.match_index <= len(kept), "acknowledged what is not durable"
        assert kept[log.offset.index : m.match_index] == log.entries[: m.match_index - log.offset.index]
        leader = self.replicas.get(to)
        if leader is not None and leader.state.leads and leader.state.term == m.term:
            first = max(log.offset.index, leader.state.log.offset.index) + 1
            for index in range(first, m.verified_index + 1):
                assert log.entry(index) == leader.state.log.entry(index), f"acknowledged another {index}"

    def _vote(self, voter: int, term: Term, candidate: int) -> None:
        assert self._votes.setdefault((voter, term), candidate) == candidate, f"{voter} voted twice in {term}"

    def _check(self, i: int) -> None:
        r = self.state(i)
        invariants.check(r)
        if r.leads:
            assert self._leaders.setdefault(r.term, i) == i, f"two leaders in term {r.term}"
            self._check_complete(r)
        for index in range(self._checked[i] + 1, r.commit_index + 1):
            self._check_committed(r, index)
        if r.commit_index > self._checked[i]:
            self.events.append(f"{i} commits up to {r.commit_index}")
        self._checked[i] = r.commit_index
        for other in self.replicas.values():
            _check_matching(r, other.state)

    def _check_complete(self, r: RaftState) -> None:
        """Leader completeness, for a leader that nobody has succeeded yet."""
        if r.term == max(self._leaders):
            for committed in self._committed[r.log.offset.index :]:
                assert committed.index <= r.log.last_index and r.log.entry(committed.index) == committed

    def _check_committed(self, r: RaftState, index: Index) -> None:
        if index <= r.log.offset.index:
            return
        found = r.log.entry(index)
        if index > len(self._committed):
            assert index == len(self._committed) + 1
            self._committed.append(found)
        assert self._committed[index - 1] == found, f"two entries committed at {index}"


def _check_matching(a: RaftState, b: RaftState) -> None:
    """Log matching: logs that agree in a place agree before it (what is in memory of both)."""
    first = max(a.log.offset.index, b.log.offset.index) + 1
    agree = False
    for index in range(min(a.log.last_index, b.log.last_index), first - 1, -1):
        same = a.log.term_at(index) == b.log.term_at(index)
        assert same or not agree, f"servers {a.me} and {b.me} agree after {index} but not at it"
        if same:
            assert a.log.entry(index) == b.log.entry(index)
        agree = same
