"""Golden scripts: prose, commands, and below each command what the replicas did.

A script is a text file. A line that begins with `> ` is a command; the lines under it that are indented by
four
blanks are its output; everything else is prose. Running a script gives the same text with the outputs as
they are
now, so a change of the protocol is read as a diff of these files.

Transcripts: `1 → 2` a message leaves (`⇢`: it waits for a disk, `↛`: it is lost), `⇒` a role or term changes,
`2@5:x` the entry of term 2 at index 5 with command x.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from craft.clock import stamper
from craft.clock.interval import UNHEARD, Readings
from craft.limits import EngineLimits
from craft.merge import Merger
from craft.messages import FetchResult, GroupReport, LeaderPersisted, ReadReport, RequestVote
from craft.raft import replication
from craft.reads import QuorumReads
from craft.sessions import NONCE_BYTES, Sessions
from craft.types import Configuration, EntryKind, HardState, Instant, Place, Proposal, make_entry
from tests.raft.harness import GROUP, Cluster, entries, show_configuration

SCRIPTS = Path(__file__).parent / "scripts"
PROMPT, INDENT = "> ", "    "

TIMES = {"heartbeat_interval_ms": 100, "election_timeout_ms_min": 400, "election_timeout_ms_max": 800}
"""The scripts' own, so that another default does not retell them."""


def run(text: str) -> str:
    """The script with every output as it is now."""
    bench, lines = Bench(), list[str]()
    for line in text.splitlines():
        if line.startswith(INDENT):
            continue
        lines.append(line)
        if line.startswith(PROMPT):
            lines += [INDENT + output for output in bench.do(line.removeprefix(PROMPT))]
    return "\n".join(lines) + "\n"


def ids(text: str) -> frozenset[int]:
    """`1,2,3`; nothing gives nobody."""
    return frozenset(int(i) for i in text.split(",") if i)


def options(words: list[str]) -> dict[str, str]:
    """`name=value` words."""
    return dict(word.split("=") for word in words)


def configuration(words: list[str], servers: int) -> Configuration:
    """`voters=1,2 outgoing=2,3 learners=4`; everyone votes where nothing is said."""
    named = options(words)
    voters = ids(named.get("voters", ",".join(map(str, range(1, servers + 1)))))
    return Configuration(voters, ids(named.get("outgoing", "")), ids(named.get("learners", "")))


class Bench:
    """What the commands of one script act upon: a cluster, a merger, sessions, readings, a reader."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.merger = Merger(1)
        self.indexes: list[int] = []
        self.sessions = Sessions()
        self.readings = Readings(0)
        self.reads = QuorumReads(0)

    def do(self, command: str) -> list[str]:
        """Carry out one command; return its output."""
        verb, _, rest = command.partition(" ")
        if verb == "quietly":
            self.do(rest)
            return []
        handler: Callable[[str], list[str]] = getattr(self, f"do_{verb}")
        output = handler(rest)
        happened, self.cluster.events = self.cluster.events, []
        return [*happened, *output]

    # -- a cluster ---------------------------------------------------------------------------------

    def do_cluster(self, rest: str) -> list[str]:
        """`cluster 3 [voters=…] [limit=…] | 2: 1@1 1@2 | 3 t9: 1@1`: logs and terms as found on disk."""
        head, *disks = [part.strip() for part in rest.split("|")]
        servers, *words = head.split()
        limits = {w.split("=")[0]: int(w.split("=")[1]) for w in words if "_" in w}
        logs, hard_states = dict[int, str](), dict[int, HardState]()
        for disk in disks:
            match = re.fullmatch(r"(\d+)(?: t(\d+))?: ?(.*)", disk)
            assert match is not None, disk
            logs[int(match[1])] = match[3]
            if match[2]:
                hard_states[int(match[1])] = HardState(int(match[2]), None, 0)
        self.cluster = Cluster(
            int(servers),
            logs=logs,
            hard_states=hard_states,
            configuration=configuration([w for w in words if "_" not in w], int(servers)),
            limits=EngineLimits(**{**TIMES, **limits}),
        )
        return self.do_show("")

    def do_show(self, rest: str) -> list[str]:
        return [self.cluster.show(i) for i in sorted(ids(rest.replace(" ", ","))) or self.cluster.ids]

    def do_elapse(self, rest: str) -> list[str]:
        self.cluster.elapse(int(rest))
        return []

    def do_live(self, rest: str) -> list[str]:
        self.cluster.live(int(rest))
        return []

    def do_tick(self, rest: str) -> list[str]:
        self.cluster.tick(int(rest))
        return []

    def do_campaign(self, rest: str) -> list[str]:
        self.cluster.campaign(int(rest))
        return []

    def do_elect(self, rest: str) -> list[str]:
        self.cluster.elect(int(rest))
        return []

    def do_heartbeat(self, rest: str) -> list[str]:
        self.cluster.heartbeat(int(rest))
        return []

    def do_propose(self, rest: str) -> list[str]:
        leader, command = rest.split()
        self.cluster.propose(int(leader), command)
        return []

    def do_change(self, rest: str) -> list[str]:
        """`change 1 v2:3,4,5<1,2,3`: the leader appends this configuration."""
        leader, to = rest.split()
        self.cluster.change(int(leader), to)
        return []

    def do_towards(self, rest: str) -> list[str]:
        """`towards 1 v2:3,4,5 [ready] [done]`: the leader takes the next step to the wanted set (PROTOCOL 8).

        `ready`: those who are to vote are live and caught up in every group; `done`: every group is there.
        """
        leader, goal, *words = rest.split()
        taken = self.cluster.step_towards(int(leader), goal, ready="ready" in words, done="done" in words)
        return [f"{leader}: {taken}"]

    def do_configuration(self, rest: str) -> list[str]:
        """By which configuration a replica acts."""
        r = self.cluster.state(int(rest))
        term, index = r.configuration_at
        return [f"{rest} acts by {show_configuration(r.configuration)} of {term}@{index}"]

    def do_wipe(self, rest: str) -> list[str]:
        """Server 3 loses its disk and comes back with another."""
        self.cluster.wipe(int(rest))
        return self.do_show(rest)

    def do_transfer(self, rest: str) -> list[str]:
        leader, target = map(int, rest.split())
        self.cluster.transfer(leader, target)
        return []

    def do_deliver(self, rest: str) -> list[str]:
        """`deliver`, `deliver to 2`, `deliver from 1`."""
        self.cluster.deliver(**self._where(rest))
        return []

    def do_lose(self, rest: str) -> list[str]:
        """As deliver, but the messages are gone."""
        return [f"{len(self.cluster.take(**self._where(rest)))} lost"]

    def _where(self, rest: str) -> dict[str, int]:
        words = rest.replace("from", "sender").split()
        return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}

    def do_settle(self, _rest: str) -> list[str]:
        self.cluster.settle()
        return []

    def do_write(self, rest: str) -> list[str]:
        pending = self.cluster.write(int(rest))
        if pending is None:
            return ["nothing to write"]
        cut, new = (pending.append.truncate_from, pending.append.entries) if pending.append else (0, ())
        hard = pending.hard_state
        assert hard is not None
        parts = [
            f"cut from {cut}" if cut else "",
            " ".join(f"{e.term}@{e.index}" for e in new),
            f"term {hard.term} vote {hard.vote or 'none'}",
        ]
        return [f"{rest} begins write {pending.number}: {', '.join(filter(None, parts))}"]

    def do_sync(self, rest: str) -> list[str]:
        self.cluster.sync(int(rest))
        return []

    def do_persist(self, rest: str) -> list[str]:
        self.cluster.persist(*sorted(ids(rest.replace(" ", ","))))
        return []

    def do_evict(self, rest: str) -> list[str]:
        self.cluster.evict(int(rest))
        return [f"{rest} holds in memory what follows {self.cluster.state(int(rest)).log.offset.index}"]

    def do_cut(self, rest: str) -> list[str]:
        a, b = map(int, rest.split())
        self.cluster.cut(a, b)
        return [f"{a} ⇹ {b}"]

    def do_partition(self, rest: str) -> list[str]:
        inside = sorted(int(i) for i in rest.split())
        self.cluster.partition(*inside)
        outside = sorted(set(self.cluster.ids) - set(inside))
        return [f"{' '.join(map(str, inside))} ⇹ {' '.join(map(str, outside))}"]

    def do_heal(self, _rest: str) -> list[str]:
        self.cluster.heal()
        return []

    def do_crash(self, rest: str) -> list[str]:
        self.cluster.crash(int(rest))
        return self.do_show(rest)

    def do_restart(self, rest: str) -> list[str]:
        self.cluster.restart(int(rest))
        return self.do_show(rest)

    def do_spoil(self, rest: str) -> list[str]:
        """`spoil 2 by 1`: while it is down, its disk loses the last synced entry, and may have lost more."""
        server, _, count = rest.split()
        self.cluster.disk(int(server)).lose(int(count), "its log ended in a damaged record")
        return self.do_show(server)

    def do_suspects(self, rest: str) -> list[str]:
        """`suspects 2`: it asks what clears it."""
        self.cluster.ask(int(rest))
        return []

    def do_reconnect(self, rest: str) -> list[str]:
        """`reconnect 1 2`: server 1 has a new connection to 2."""
        i, peer = map(int, rest.split())
        self.cluster.reconnect(i, peer)
        return []

    def do_ask(self, rest: str) -> list[str]:
        """`ask 3 by 2 t2 last 1@1`: server 2 wants the vote of server 3 (Raft 5.2)."""
        voter, _, candidate, term, _, last = rest.split()
        place = _place(last)
        question = RequestVote(GROUP, int(term[1:]), place.index, place.term, pre=False, transfer=False)
        self.cluster.step(int(candidate), int(voter), question)
        return []

    def do_told(self, rest: str) -> list[str]:
        """`told 2 commit 1@2 by 3`: a frame of 3 says that it knows this place committed (PROTOCOL 9)."""
        to, _, place, _, sender = rest.split()
        term, index = map(int, place.split("@"))
        replication.learn_commit(self.cluster.state(int(to)), int(sender), index, term, self.cluster.time)
        return self.do_show(to)

    def do_vouched(self, rest: str) -> list[str]:
        """`vouched 2 by 1 t1 up to 3`: leader 1 says that its log of term 1 is durable up to index 3."""
        to, _, sender, term, *_, index = rest.split()
        self.cluster.step(int(sender), int(to), LeaderPersisted(GROUP, int(term[1:]), int(index)))
        return self.do_show(to)

    def do_fetched(self, rest: str) -> list[str]:
        """`fetched 2 from 3: 1@1 1@2`: a peer's committed entries arrive (PROTOCOL 9)."""
        head, _, found = rest.partition(": ")
        to, _, sender = head.split()
        self.cluster.step(int(sender), int(to), FetchResult(GROUP, entries(found)))
        return self.do_show(to)

    def do_mergeable(self, rest: str) -> list[str]:
        """What the merge may take of a replica: committed and durable here (PROTOCOL 3)."""
        r = self.cluster.state(int(rest))
        return [f"up to {min(r.commit_index, r.log.persisted)}"]

    # -- a merger ----------------------------------------------------------------------------------

    def do_merger(self, rest: str) -> list[str]:
        self.merger, self.indexes = Merger(int(rest)), [0] * int(rest)
        return []

    def do_extend(self, rest: str) -> list[str]:
        """`extend 0: 90 95e`: committed and durable entries of group 0; `e` marks an empty one."""
        group, _, stamps = rest.partition(": ")
        g = int(group)
        for stamp in stamps.split():
            self.indexes[g] += 1
            kind = EntryKind.EMPTY if stamp.endswith("e") else EntryKind.COMMAND
            timestamp = int(stamp.rstrip("e"))
            made = make_entry(g, index=self.indexes[g], term=1, timestamp=timestamp, kind=kind)
            self.merger.extend(g, (made,))
        closed = " ".join(map(str, self.merger.closed))
        return [f"closed {closed}, safe {self.merger.safe}, waiting for group {self.merger.blocking}"]

    def do_drain(self, _rest: str) -> list[str]:
        drained = [f"({timestamp}, g{group})" for timestamp, group, _ in self.merger.drain()]
        return [" ".join(drained) or "nothing"]

    # -- stamps and readings -----------------------------------------------------------------------

    def do_stamp(self, rest: str) -> list[str]:
        """`stamp now=95 last=90 floor=101`."""
        named = {key: int(value) for key, value in options(rest.split()).items()}
        return [str(stamper.stamp(named["now"], last=named["last"], floor=named["floor"]))]

    def do_clamp(self, rest: str) -> list[str]:
        """`clamp clock=100000 reached=1000 offset=50`."""
        named = {key: int(value) for key, value in options(rest.split()).items()}
        reading, clamped = stamper.bounded(named["clock"], named["reached"], named["offset"])
        return [f"{reading}{' (clamped)' if clamped else ''}"]

    def do_readings(self, rest: str) -> list[str]:
        self.readings = Readings(int(rest))
        return []

    def do_answer(self, rest: str) -> list[str]:
        """`answer 2 clock=1001 to=1000 at=1200`: 2's frame answers what we sent at 1000, handled at 1200."""
        peer, *words = rest.split()
        named = {key: int(value) for key, value in options(words).items()}
        self.readings.observe(int(peer), named["clock"], named["to"], Instant(named["at"], 0))
        return []

    def do_reached(self, rest: str) -> list[str]:
        """`reached at=1200 clock=1000`: q of servers 1, 2, 3 as server 1 knows it."""
        named = {key: int(value) for key, value in options(rest.split()).items()}
        everyone = Configuration(frozenset({1, 2, 3}))
        reached = self.readings.reached(everyone, Instant(named["at"], named["clock"]), 1)
        return ["minus infinity" if reached == UNHEARD else str(reached)]

    # -- sessions ----------------------------------------------------------------------------------

    def do_sessions(self, _rest: str) -> list[str]:
        self.sessions = Sessions()
        return []

    def do_open(self, rest: str) -> list[str]:
        """`open 1 7 a`: server 1's incarnation with counter 7 and nonce a, at its place in the merged log."""
        server, counter, nonce = rest.split()
        return [self.sessions.open(int(server), int(counter), nonce.encode() * NONCE_BYTES).name.lower()]

    def do_request(self, rest: str) -> list[str]:
        """`request 1 7 #5 [below=3]`: request 5 of that session is merged."""
        server, counter, number, *words = rest.split()
        below = int(options(words).get("below", "1"))
        proposal = Proposal(int(server), int(counter), int(number.lstrip("#")), below, 0, b"")
        return ["takes effect" if self.sessions.admit(proposal) else "no effect"]

    # -- quorum reads ------------------------------------------------------------------------------

    def do_read(self, _rest: str) -> list[str]:
        """A read arrives, and a round begins."""
        self.reads = QuorumReads(0)
        self.reads.add("read")
        self.reads.begin(0, 1)
        return [f"round {self.reads.round}"]

    def do_report(self, rest: str) -> list[str]:
        """`report 2 command=3@9 configuration=2@5 voters=1,3,4 [outgoing=…]`."""
        server, *words = rest.split()
        named = options(words)
        command, at = (_place(named.get(key, "0@0")) for key in ("command", "configuration"))
        voters = configuration([w for w in words if w.startswith(("voters", "outgoing"))], 3)
        report = ReadReport(self.reads.round, (GroupReport(command, command, at, voters),))
        self.reads.report(int(server), report, 1)
        if not self.reads.completed:
            return ["the round goes on"]
        target = self.reads.completed[0].targets[0]
        return [f"complete: wait for {target.term}@{target.index}"]


def _place(text: str) -> Place:
    term, index = map(int, text.split("@"))
    return Place(term, index)
