"""The mutants: each the mistake of a real system, or a plausible rule that the protocol had to give up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.mutants.rewriting import Rewrite, rewritten


@dataclass(frozen=True)
class Mutant:
    """One small wrong version of craft."""

    name: str
    rule: str
    what: str
    rewrites: tuple[Rewrite, ...]
    needs: str = ""
    """What a seed must draw for this to make a difference: a hunt passes over the others. Empty: nothing."""

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The product is wrong in this way, in this process, until the end of the block."""
        with rewritten(self.rewrites):
            yield


def _mutant(name: str, rule: str, what: str, *rewrites: tuple[str, str, str]) -> Mutant:
    return Mutant(name, rule, what, tuple(Rewrite(*rewrite) for rewrite in rewrites))


def _needing(needs: str, mutants: tuple[Mutant, ...]) -> tuple[Mutant, ...]:
    return tuple(replace(mutant, needs=OF_THEIR_OWN.get(mutant.name, needs)) for mutant in mutants)


OF_THEIR_OWN = {
    "snapshot_below_the_start_is_a_beginning": "lost snapshots",
    "restored_data_are_still_ahead": "own data, and lost snapshots",
    "read_ahead_of_the_merge": "own data, and session reads",
    "read_by_the_readers_own_configuration": "old sets",
    "requests_wait_twice": "",
    "leader_with_a_hanging_disk_leads_on": "stalls",
}

ELECTION = "craft.raft.election"
REPLICATION = "craft.raft.replication"
LOG = "craft.raft.log:Log"

ELECTIONS = (
    _mutant(
        "vote_is_not_persisted",
        "Raft 5.2; PROTOCOL 1",
        "A vote is forgotten by a crash, and given again.",
        (f"{ELECTION}:handle_request_vote", "r.vote, r.hard_dirty = sender, True", "r.vote = sender"),
    ),
    _mutant(
        "answers_leave_before_the_write",
        "PROTOCOL 1, 10",
        "Votes leave before the write that carries them is durable.",
        ("craft.engine.linking:_drain_outbox", "if write > e.durable_write:", "if False:"),
    ),
    _mutant(
        "sync_is_skipped",
        "PROTOCOL 10",
        "What was handed to the disk counts as durable.",
        (
            "craft.engine.writing:take_write",
            "e.next_write += 1",
            (
                "e.next_write += 1; e.durable_write = e.writing;"
                " [e.replicas[g].persisted(e.writing, e.now.monotonic_ns) for g in groups]"
            ),
        ),
    ),
    _mutant(
        "vote_is_given_twice",
        "Raft 5.2",
        "A second candidate of the same term gets the vote as well.",
        (f"{ELECTION}:handle_request_vote", "r.vote in (None, sender)", "True"),
    ),
    _mutant(
        "vote_for_an_outdated_log",
        "Raft 5.4.1",
        "A candidate that lacks committed entries is elected.",
        (
            f"{ELECTION}:handle_request_vote",
            "(m.last_term, m.last_index) >= (r.log.last_term, r.log.last_index)",
            "True",
        ),
    ),
    _mutant(
        "longest_log_wins",
        "Raft 5.4.1",
        "Logs are compared by length, not by last term first.",
        (
            f"{ELECTION}:handle_request_vote",
            "(m.last_term, m.last_index) >= (r.log.last_term, r.log.last_index)",
            "m.last_index >= r.log.last_index",
        ),
    ),
    _mutant(
        "late_votes_count",
        "Raft 5.2",
        "A vote of an earlier election counts in this one.",
        (
            f"{ELECTION}:handle_request_vote_result",
            "if r.role is waiting_for and m.term == asked and",
            "if r.role is waiting_for and",
        ),
    ),
    _mutant(
        "check_quorum_is_off",
        "dissertation 6.2",
        "A leader that nobody follows leads on, and its followers honour it.",
        (f"{ELECTION}:tick", "_check_quorum(r, now)", "pass"),
    ),
    _mutant(
        "anyone_disturbs_the_term",
        "dissertation 4.2.3, 9.6",
        "No pre-vote, and no server honours the leader that it hears: who hears nothing deposes it for ever.",
        (f"{ELECTION}:leader_alive", "if r.leads:", "if True:\n        return False\n    if r.leads:"),
        (f"{ELECTION}:tick", "pre_campaign(r, now)", "campaign(r, now, transfer=False)"),
    ),
    _mutant(
        "transfer_ignores_who_is_caught_up",
        "dissertation 3.10; PROTOCOL 9",
        "A group is handed to a server that lacks the end of its log, and cannot be elected.",
        (f"{ELECTION}:maybe_time_out_now", "and r.progress[r.transfer_to].counted == r.log.last_index", ""),
    ),
    _mutant(
        "leader_with_a_hanging_disk_leads_on",
        "PROTOCOL 9",
        "A leader whose disk takes nothing any more goes on leading where no hand-over works.",
        ("craft.engine.placing:tick", "if hearing.disk_hangs(e) and e.peers:", "if False:"),
    ),
    _mutant(
        "no_entry_at_election",
        "Raft 8",
        "A new leader appends nothing: what earlier terms left is never committed.",
        (f"{ELECTION}:become_leader", "= True, now, now", "= False, now, now"),
    ),
)

LOGS = (
    _mutant(
        "commit_counts_an_old_term_entry",
        "Raft 5.4.2, Figure 8",
        "A leader commits entries of earlier terms by counting.",
        (f"{REPLICATION}:maybe_commit", "and r.log.term_at(index) == r.term", ""),
    ),
    _mutant(
        "leader_counts_what_it_has_not_persisted",
        "PROTOCOL 1",
        "The leader's own count runs ahead of its disk.",
        (f"{REPLICATION}:maybe_commit", "else r.log.persisted", "else r.log.last_index"),
    ),
    _mutant(
        "acknowledges_before_the_sync",
        "PROTOCOL 1; NATS 2.12.1 by Jepsen",
        "A follower acknowledges what it has received.",
        (f"{REPLICATION}:acknowledge", "match = min(r.verified, r.log.persisted)", "match = r.verified"),
    ),
    _mutant(
        "write_vouches_for_what_overwrote_it",
        "etcd-io/etcd 1690 (the ABA of asynchronous writes)",
        "A write that completes vouches for entries that replaced its own meanwhile.",
        (f"{LOG}.mark_persisted", "min(upto, self.handed)", "min(upto, self.last_index)"),
    ),
    _mutant(
        "stale_append_cuts_the_log",
        "Raft 5.3; MIT 6.5840",
        "An AppendEntries that arrives late cuts what was appended after it.",
        (
            f"{REPLICATION}:accept_entries",
            "    if term == entry.term:\n            continue",
            (
                "    if term == entry.term != r.term or (term == entry.term and entry != entries[-1]):\n"
                "            continue"
            ),
        ),
    ),
    _mutant(
        "entries_before_are_not_compared",
        "Raft 5.3",
        "A follower appends behind a different entry.",
        (
            f"{REPLICATION}:handle_append_entries",
            "r.log.term_at(m.prev_index) != m.prev_term",
            "r.log.term_at(m.prev_index) is None",
        ),
    ),
    _mutant(
        "commits_beyond_what_was_compared",
        "Raft 5.3; scylladb 9965",
        "A follower takes the leader's commit index for its own divergent suffix.",
        (
            f"{REPLICATION}:_note_verified",
            "min(commit_index, r.verified)",
            "min(commit_index, r.log.last_index)",
        ),
        (  # Right by itself. Our own leaders never go back further than they must; others may.
            f"{REPLICATION}:handle_append_rejected",
            "rejected(m.rejected_index, hint, now)",
            "rejected(m.rejected_index, max(0, hint - 8), now)",
        ),
    ),
    _mutant(
        "deposed_leaders_are_obeyed",
        "Raft 5.1",
        "Entries of a leader of an earlier term are taken.",
        (f"{REPLICATION}:handle_append_entries", "if m.term < r.term:", "if False:"),
        (f"{REPLICATION}:follow", "if term > r.term or", "if term < r.term: return\n    if term > r.term or"),
    ),
    _mutant(
        "late_acknowledgements_count",
        "Raft 5.1; hashicorp/raft 666",
        "An acknowledgement of an earlier term counts towards a commit.",
        (f"{REPLICATION}:_from_follower", "and term == r.term", ""),
    ),
    _mutant(
        "leader_vouches_for_what_it_has_not_persisted",
        "PROTOCOL 1",
        "Followers count on entries that the leader's disk has not got yet.",
        ("craft.engine.linking:_durable", "r.log.persisted", "r.log.last_index"),
    ),
    _mutant(
        "follower_infers_an_old_term_entry",
        "Raft 5.4.2, Figure 8",
        "A follower commits entries of earlier terms by counting.",
        (f"{REPLICATION}:infer_commit", "and r.log.term_at(index) == r.term", ""),
    ),
    _mutant(
        "follower_infers_what_it_has_not_compared",
        "Raft 5.3; PROTOCOL 1",
        "A follower takes its own divergent suffix for what the leader holds.",
        # Either check alone keeps it from that: an entry of this term is the leader's.
        (
            f"{REPLICATION}:infer_commit",
            (
                "r.verified, r.log.persisted)\n"
                "    if index > r.commit_index and r.log.term_at(index) == r.term and"
            ),
            "r.log.persisted)\n    if index > r.commit_index and",
        ),
    ),
    _mutant(
        "follower_infers_before_its_own_sync",
        "PROTOCOL 1",
        "A follower counts itself before its disk has the entry.",
        (
            f"{REPLICATION}:infer_commit",
            "min(r.leader_persisted, r.verified, r.log.persisted)",
            "min(r.leader_persisted, r.verified)",
        ),
    ),
    _mutant(
        "two_of_five_infer_a_commit",
        "PROTOCOL 1",
        "A leader and one follower count as a quorum of five.",
        (
            f"{REPLICATION}:infers_commits",
            "if not quorum.is_pair_quorum(r.configuration, leader, follower):",
            "if False:",
        ),
    ),
    _mutant(
        "lost_appends_are_not_sent_again",
        "Raft 5.3; hashicorp/raft 612",
        "Replication to a follower stops for ever when one frame is lost.",
        (
            f"{REPLICATION}:retry_stalled",
            "if _owes_answer(p) and now - p.moved_at >= patience",
            "if False",
        ),
    ),
    _mutant(
        "fetch_trusts_the_number",
        "PROTOCOL 9 (†), attack 10",
        "A commit learnt from a peer is believed by its index, without its term.",
        (f"{REPLICATION}:learn_commit", "if r.log.term_at(index) == term:", "if index <= r.log.last_index:"),
    ),
    _mutant(
        "nothing_is_fetched",
        "PROTOCOL 9",
        "One cut link hides a group for ever from a server that others serve well.",
        ("craft.engine.linking:fetch_lacking", "if index > r.commit_index and", "if False and"),
    ),
    _mutant(
        "fetched_terms_are_not_adopted",
        "PROTOCOL 9 (†)",
        "An entry of a later term is taken without its term.",
        (f"{REPLICATION}:handle_fetch_result", "if m.entries[-1].term > r.term:", "if False:"),
    ),
    _mutant(
        "truncation_is_not_written",
        "Raft 5.3; braft 10cd9e3",
        "The disk is not told of a cut.",
        (f"{LOG}.truncate_from", "self.cut = min(self.cut or index, index)", "pass"),
    ),
)

MERGE = (
    _mutant(
        "stamp_without_the_logs_floor",
        "PROTOCOL 2, attack 9",
        "A leader stamps by its clock alone, behind its own last entry.",
        (
            "craft.clock.stamper:stamp",
            "return max(bounded_now, last + 1, floor)",
            "return max(bounded_now, floor)",
        ),
    ),
    _mutant(
        "closed_by_an_uncommitted_entry",
        "PROTOCOL 3, attack 9",
        "What a leader has appended closes its group, committed or not.",
        (
            "craft.engine.merging:_deliver",
            "min(r.commit_index, log.persisted)",
            "log.persisted",
        ),
    ),
    _mutant(
        "closed_beyond_what_is_persisted",
        "PROTOCOL 3 (†), attack 12",
        "A committed entry that is not durable here closes its group.",
        (
            "craft.engine.merging:_deliver",
            "min(r.commit_index, log.persisted)",
            "min(r.commit_index, log.last_index)",
        ),
    ),
    _mutant(
        "closed_by_a_bare_clock",
        "PROTOCOL 3",
        "A group that is silent for a second counts as closed up to then.",
        (
            "craft.engine.merging:turn",
            "if e.applying or",
            (
                "e.merger.closed = [max(c, e.now.clock_ns - 1_000_000_000) for c in e.merger.closed]\n"
                "    if e.applying or"
            ),
        ),
    ),
    _mutant(
        "merged_before_every_group_has_closed",
        "PROTOCOL 3, the theorem",
        "A majority of the groups is waited for, not all: answers come before the merge is safe.",
        (
            "craft.merge:Merger.drain",
            "safe = min(self.closed)",
            "safe = sorted(self.closed)[(len(self.closed) - 1) // 2]",
        ),
    ),
    _mutant(
        "tie_broken_by_arrival",
        "PROTOCOL 2",
        "Entries with one timestamp come out in the order in which they became known.",
        (
            "craft.merge:Merger.drain",
            "in enumerate(self._queues):",
            "in sorted(enumerate(self._queues), key=lambda pair: -len(pair[1])):",
        ),
    ),
    _mutant(
        "nothing_is_closed",
        "PROTOCOL 3",
        "Nobody closes a silent group: the merge waits for its next command.",
        ("craft.engine.leading:turn", "if e.demand:", "if False:"),
    ),
    _mutant(
        "followers_refuse_far_stamps",
        "PROTOCOL 2 (†), attack 1",
        "A follower refuses entries stamped too far ahead of its own clock.",
        (
            "craft.engine.dispatch:_step_append",
            "_step(e, sender, message)",
            (
                "ahead = message.entries and message.entries[-1].timestamp > e.now.clock_ns + 250_000_000\n"
                "    if ahead:\n        return\n    _step(e, sender, message)"
            ),
        ),
    ),
    _mutant(
        "closing_waits_for_room",
        "PROTOCOL 3 (†), attack 8",
        "The bound on what is unmerged holds back closing entries too, for which all wait.",
        (
            "craft.engine.leading:turn",
            "and group not in appended and r.transfer_to is None",
            (
                "and group not in appended and r.transfer_to is None"
                " and _may_append_commands(e, r, e.queues[group])"
            ),
        ),
    ),
)

SESSIONS = (
    _mutant(
        "repeated_request_takes_effect",
        "PROTOCOL 5",
        "A retry that was merged before is applied again.",
        ("craft.sessions:Sessions.admit", "below or request in session.executed:", "below:"),
    ),
    _mutant(
        "session_keeps_a_last_number",
        "PROTOCOL 5",
        "A session remembers its greatest request only: what merges out of order is dropped.",
        (
            "craft.sessions:Sessions.admit",
            "below or request in session.executed:",
            "below or request <= max(session.executed, default=0):",
        ),
    ),
    _mutant(
        "session_is_created_implicitly",
        "PROTOCOL 5 (†), attack 3",
        "A request of a session that is not open opens it.",
        (
            "craft.sessions:Sessions.admit",
            "if session is None or session.counter != proposal.counter:",
            (
                "if session is None or session.counter != proposal.counter:\n"
                "        session = self._open[proposal.server_id] = Session(proposal.counter, bytes(16))\n"
                "    if False:"
            ),
        ),
    ),
    _mutant(
        "answered_line_prunes_too_much",
        "PROTOCOL 5 (†)",
        "The line below which all was answered is the request itself.",
        (
            "craft.engine.proposing:_proposal",
            "below = next(iter(e.pending), e.next_request)",
            "below = pending.request",
        ),
    ),
    _mutant(
        "counter_is_used_before_it_is_durable",
        "PROTOCOL 5",
        "A crash forgets the session's number, and the next session takes it again.",
        (
            "craft.engine.proposing:begin_session",
            "e.session_state = SessionState.NUMBERING",
            "e.session_state = SessionState.NUMBERING\n    counter_durable(e)",
        ),
        (
            "craft.engine.proposing:counter_durable",
            "assert e.session_state is SessionState.NUMBERING",
            "if e.session_state is not SessionState.NUMBERING:\n        return",
        ),
    ),
    _mutant(
        "requests_are_not_proposed_again",
        "PROTOCOL 5",
        "A request that was lost on its way is never placed again.",
        (
            "craft.engine.proposing:tick",
            "if pending.retry_at <= now and pending.stage is Stage.APPENDED:",
            "if False:",
        ),
    ),
    _mutant(
        "unknown_is_told_as_rejected",
        "PROTOCOL 5",
        "A server that stops says that what it had sent has no effect.",
        (
            "craft.engine.core:Engine.abandon",
            "(unknown if pending.sent else rejected)",
            "rejected",
        ),
    ),
    _mutant(
        "requests_go_to_leaders_only",
        "PROTOCOL 9",
        "A server that no leader hears keeps its clients waiting: found by the simulator.",
        ("craft.engine.proposing:_detours", "near = [", "near = [] and ["),
    ),
    _mutant(
        "session_floor_is_the_answered_timestamp",
        "PROTOCOL 2 (†), attack 7",
        "A session's next write may tie with what it was answered: a tie sorts by group.",
        (
            "craft.engine.leading:_take",
            "max(floor, proposal.answered_timestamp + 1)",
            "max(floor, proposal.answered_timestamp)",
        ),
    ),
    _mutant(
        "floor_is_compared_instead_of_the_answer",
        "PROTOCOL 2 (†), attack 17",
        "A proposal waits until time is beyond what its session was answered, not until it is there.",
        (
            "craft.engine.leading:_take",
            "proposal.answered_timestamp > max(",
            "proposal.answered_timestamp + 1 > max(",
        ),
    ),
    _mutant(
        "answered_line_travels_without_its_floor",
        "PROTOCOL 5 (†), attack 3",
        "A proposal says what was answered, and not up to when.",
        (
            "craft.engine.proposing:_proposal",
            "answered = max(e.answered_timestamp, pending.floor)",
            "answered = pending.floor",
        ),
    ),
    _mutant(
        "sessions_expire_by_a_local_clock",
        "PROTOCOL 5",
        "A client's session ends when the server's own clock says so, not by merged time.",
        (
            "craft.engine.merging:_merge",
            "merged = fold(e, group, entry, settle, note_opened)",
            "merged = (e.clients.expire(e.now.clock_ns), fold(e, group, entry, settle, note_opened))[1]",
        ),
    ),
    _mutant(
        "repeated_client_request_takes_effect",
        "PROTOCOL 5",
        "A remote client's request that was merged before, through another server, is applied again.",
        ("craft.client_sessions:_admit", "if tag.request in session.executed:", "if False:"),
    ),
    _mutant(
        "client_session_is_found_by_its_id_alone",
        "PROTOCOL 5 (†), attack 3",
        "What was asked in a session that has ended takes effect in one that a late `open` made again.",
        (
            "craft.client_sessions:ClientSessions.judge",
            "if session is None or session.opened != tag.opened:",
            "if session is None:",
        ),
    ),
    _mutant(
        "uncertain_call_is_begun_anew",
        "PROTOCOL 5",
        "A client whose session has ended asks again in another, though an attempt may have had its effect.",
        ("craft.insisting:Asked.ended", "if self.uncertain:", "if False:"),
    ),
    _mutant(
        "refused_attempt_speaks_for_all",
        "PROTOCOL 5",
        "A client says that a call has no effect because the last attempt had none.",
        ("craft.insisting:Asked.refused", "if not self.uncertain:", "if True:"),
    ),
)

LEVELS = (
    _mutant(
        "commit_wait_is_skipped",
        "PROTOCOL 4 (†)",
        "A write is answered as committed while some clock of the cluster has not passed its timestamp.",
        ("craft.engine.committing:_left", "if bound is None", "if True"),
    ),
    _mutant(
        "commit_wait_for_one_error_bound",
        "PROTOCOL 4 (†), attack 9",
        "One clock's error is waited for; the next writer's clock may err the other way.",
        ("craft.engine.committing:_left", "2 * bound", "bound"),
    ),
    _mutant(
        "what_was_answered_as_committed_is_no_floor",
        "PROTOCOL 2, 4",
        "A session's next write may be stamped before what it was answered as committed.",
        (
            "craft.engine.committing:turn",
            "e.answered_timestamp = max(e.answered_timestamp, timestamp)",
            "pass",
        ),
    ),
)

CLOCKS = (
    _mutant(
        "readings_are_carried_forward_from_arrival",
        "PROTOCOL 2 (†), attack 15",
        "What a peer's clock said counts as said when it arrives, however long it was on its way.",
        (
            "craft.clock.interval:Readings.observe",
            "(echo, clock - echo)",
            "(echo, clock - now.monotonic_ns)",
        ),
    ),
)

READS = (
    _mutant(
        "read_without_a_quorum",
        "PROTOCOL 6",
        "A read asks nobody but itself.",
        ("craft.reads:QuorumReads._covered", "return quorum.is_quorum(", "return True or quorum.is_quorum("),
    ),
    _mutant(
        "read_takes_an_older_round",
        "PROTOCOL 6",
        "A report to an earlier round counts in this one.",
        (
            "craft.reads:QuorumReads.report",
            "self._first_round <= report.round <= self.round",
            "report.round <= self.round",
        ),
    ),
    _mutant(
        "read_joins_a_round_that_was_sent",
        "PROTOCOL 6",
        "A read that arrives after the question was sent takes its answer.",
        (
            "craft.reads:QuorumReads.add",
            "self._waiting_round.append(token)",
            "(self._waiting_round if self.started_at is None else self._tokens).append(token)",
        ),
    ),
    _mutant(
        "read_asks_for_commits",
        "PROTOCOL 6",
        "Reports name what is committed, not what is appended.",
        (
            "craft.engine.reading:_group_report",
            "GroupReport(r.log.last_command,",
            "GroupReport(min(r.log.last_command, r.commit_place),",
        ),
    ),
    _mutant(
        "read_does_not_wait_for_applying",
        "PROTOCOL 6",
        "A read is served when its target is committed.",
        ("craft.engine.reading:_reached", "while waiting.needs:", "while False:"),
    ),
    _mutant(
        "read_compares_indexes_first",
        "PROTOCOL 6",
        "Places are compared by index before term: a read waits for an orphan that was overwritten.",
        (
            "craft.engine.reading:_reached",
            "if place < target:",
            "if (place.index, place.term) < (target.index, target.term):",
        ),
    ),
    _mutant(
        "read_round_is_not_begun_afresh",
        "PROTOCOL 6",
        "A round whose questions were lost is waited for, for ever.",
        ("craft.reads:QuorumReads.begin", "elif now - self.started_at < retry_ns:", "elif True:"),
    ),
)

STORAGE = (
    _mutant(
        "hole_is_not_seen",
        "PROTOCOL 10 (†), attack 4",
        "A batch that is missing in the middle is not noticed.",
        ("craft.recovery:_damage", "if hole:", "if False:"),
    ),
    _mutant(
        "synced_number_is_ignored",
        "PROTOCOL 10 (†), attack 4",
        "A log that ends before what was synced opens.",
        ("craft.recovery:_damage", "if witness > last:", "if False:"),
    ),
    _mutant(
        "checksums_are_not_compared",
        "PROTOCOL 10; PAR, FAST 2018",
        "A flipped bit in a record is served.",
        ("craft.types:decode_entry", "if zlib.crc32(memoryview(record)[4:]) != checksum:", "if False:"),
    ),
    _mutant(
        "suspects_start",
        "PROTOCOL 10 (†), attack 13",
        "A server that may have lost what it acknowledged votes.",
        ("craft.recovery:judge", "if suspicion:", "if False:"),
    ),
)

SUSPICION = "craft.raft.suspicion"

SUSPECTS = (
    _mutant(
        "suspects_vote_counts",
        "PROTOCOL 10 (†), attacks 13, 20",
        "A quorum of votes elects, whoever gave them.",
        (
            "craft.quorum:vote_outcome",
            "is_quorum(configuration, granted.difference(suspects))",
            "is_quorum(configuration, granted)",
        ),
    ),
    _mutant(
        "suspects_report_counts",
        "PROTOCOL 6, 10",
        "A read's majority contains a server that may have forgotten the latest entry.",
        ("craft.reads:QuorumReads._covered", "if not groups[group].suspect", "if groups"),
    ),
    _mutant(
        "suspect_vouches_for_its_log",
        "PROTOCOL 1, 10",
        "A suspect acknowledges as anybody.",
        (f"{REPLICATION}:acknowledge", "if r.suspect:", "if False:"),
    ),
    _mutant(
        "suspects_acknowledgement_counts",
        "PROTOCOL 1, 10",
        "A leader counts what a suspect holds.",
        ("craft.raft.progress:Progress.counted", "0 if self.suspect else self.match", "self.match"),
    ),
    _mutant(
        "suspect_infers_a_commit",
        "PROTOCOL 1, 10",
        "A suspect takes for committed what it and the leader hold.",
        (f"{REPLICATION}:infer_commit", "or r.leader_id is None or r.suspicion:", "or r.leader_id is None:"),
        (
            f"{REPLICATION}:infers_commits",
            "if r.suspicion or (progress is not None and progress.suspect):",
            "if False:",
        ),
    ),
    _mutant(
        "suspicion_is_forgotten",
        "PROTOCOL 10 (†), attack 13",
        "A start finds its log as it was repaired, and not why.",
        (
            "craft.recovery:RecoveredLog.recovered",
            "self.configurations,\n        suspicion,",
            "self.configurations,\n        '',",
        ),
    ),
    _mutant(
        "suspicion_ends_with_the_repeated_past",
        "PROTOCOL 10 (†), attack 13",
        "An entry that was appended before the suspect was heard clears it.",
        (
            f"{SUSPICION}:heard_suspect",
            "progress.doubt(r.log.last_index + 1, incarnation)",
            "progress.doubt(max(1, r.commit_index), incarnation)",
        ),
    ),
    _mutant(
        "suspicion_ends_before_the_write",
        "PROTOCOL 1, 10",
        "A suspect is trusted while the entry that clears it is on its way to the disk.",
        (f"{SUSPICION}:take_end", "r.clearing_write = write", "r.clearing_write, r.suspicion = write, ''"),
    ),
    _mutant(
        "any_incarnation_is_cleared",
        "PROTOCOL 10 (†)",
        "What clears one start of a server clears the next one too, which has lost more.",
        (f"{SUSPICION}:handle_cleared", "m.incarnation != r.incarnation or ", ""),
    ),
    _mutant(
        "former_leader_does_not_look",
        "PROTOCOL 10 (†), attack 20",
        "A former leader clears whoever holds its no-op.",
        (
            f"{SUSPICION}:handle_suspected",
            "index = r.former.counted.get(sender, 0)",
            "index = r.former.noop_index",
        ),
    ),
    _mutant(
        "former_leader_forgets_what_it_told",
        "PROTOCOL 1, 10",
        "A former leader counts acknowledgements only; a follower had inferred commits beyond them.",
        (f"{SUSPICION}:resign", "max(progress.vouched, r.told_durable)", "progress.vouched"),
    ),
    _mutant(
        "lost_votes_are_suspect_only",
        "PROTOCOL 10",
        "A directory that cannot prove its votes starts as a suspect.",
        ("craft.recovery:_damage", "if facts.ballots_number is None and _suspicion(facts):", "if False:"),
    ),
    _mutant(
        "suspect_takes_the_next_counter",
        "PROTOCOL 5, 10",
        "A suspect numbers its session by what it remembers.",
        ("craft.engine.proposing:begin_session", "if e.counter_lost:", "if False:"),
    ),
)

INSTALLING = "craft.engine.installing"
CAPTURING = "craft.engine.capturing"

SNAPSHOTS = (
    _mutant(
        "old_snapshot_is_installed",
        "PROTOCOL 7 (†), attack 6",
        "What has arrived is installed, though more is applied by now.",
        # That it is no longer needed is seen here, and again where the state would be replaced.
        (
            f"{INSTALLING}:turn",
            (
                "if not helps(e, info.head.position, indexes) or not lacks(e, indexes):\n"
                '        mark("snapshot no longer needed")\n'
                "        return\n"
                '    mark("snapshot installed")\n'
                "    s.installed += 1\n"
                "    anew = info.head.position > e.applied_position or s.unfounded"
            ),
            'mark("snapshot installed")\n    anew = True',
        ),
    ),
    _mutant(
        "snapshot_below_the_start_is_a_beginning",
        "PROTOCOL 7 (†), attack 16",
        "A server goes on from a snapshot that ends before one of its logs begins.",
        (
            f"{INSTALLING}:helps",
            "any(index < start for index, start in zip(indexes, starts, strict=True))",
            "False",
        ),
    ),
    _mutant(
        "logs_are_compacted_to_the_newer_cut",
        "PROTOCOL 7",
        "What only one snapshot covers is forgotten: should it be damaged, nothing is left.",
        ("craft.engine.compacting:tick", "one in s.kept)", "one in s.kept[-1:])"),
    ),
    _mutant(
        "logs_are_compacted_to_the_older_cut",
        "PROTOCOL 7 (†)",
        "A newer snapshot whose cut lies below an older one's can no longer be begun from.",
        ("craft.engine.compacting:tick", "one in s.kept)", "one in s.kept[:1])"),
    ),
    _mutant(
        "sessions_are_not_in_the_snapshot",
        "PROTOCOL 5, 7",
        "Who starts from a snapshot knows no session of a server.",
        (f"{CAPTURING}:pack", "e.sessions.export()", "()"),
    ),
    _mutant(
        "client_sessions_are_not_in_the_snapshot",
        "PROTOCOL 5, 7",
        "Who starts from a snapshot knows no session of a client.",
        (f"{CAPTURING}:pack", "clients = e.clients.export()", "clients = iter(())"),
    ),
    _mutant(
        "members_are_not_in_the_snapshot",
        "PROTOCOL 7, 8",
        "Who starts from a snapshot knows the founders only.",
        (f"{CAPTURING}:pack", "e.members.pack()", "Members(e.members.servers).pack()"),
    ),
    _mutant(
        "snapshot_is_captured_while_applying",
        "PROTOCOL 7",
        "The sessions are of a later moment than the state.",
        (f"{CAPTURING}:turn", "if e.applying or not _due(e):", "if not _due(e):"),
    ),
    _mutant(
        "cut_is_what_was_delivered",
        "PROTOCOL 7",
        "Entries that wait to be merged count as covered.",
        (f"{CAPTURING}:cut", "if not e.outstanding[group]:", "if True:"),
    ),
    _mutant(
        "cuts_go_back",
        "PROTOCOL 7 (†)",
        "A snapshot covers less of a log than the one before, up to which it is compacted.",
        (
            f"{CAPTURING}:cut",
            "s.applied[group] = s.delivered[group]\n    place, timestamp = s.applied[group]",
            "pass\n    place, timestamp = (s.applied if e.outstanding[group] else s.delivered)[group]",
        ),
    ),
    _mutant(
        "term_of_a_cut_is_not_adopted",
        "Raft 7; PROTOCOL 7",
        "A log begins in a term that its server does not know.",
        ("craft.raft.snapshots:install", "if term > r.term:", "if False:"),
    ),
    _mutant(
        "log_is_kept_behind_any_snapshot",
        "Raft 7; PROTOCOL 7",
        "What follows the cut stays, though the log before it was another.",
        ("craft.raft.snapshots:install", "if r.log.term_at(index) == term:", "if r.log.last_index >= index:"),
    ),
    _mutant(
        "merge_goes_on_before_the_state_is_there",
        "PROTOCOL 7",
        "Entries are applied to the state of before the snapshot.",
        (
            "craft.engine.merging:turn",
            "if e.applying or e.snapshots.restoring or out.capture is not None:",
            "if e.applying or out.capture is not None:",
        ),
    ),
    _mutant(
        "requests_in_a_snapshot_are_asked_again",
        "PROTOCOL 5, 7",
        "What took effect within a snapshot is never answered.",
        (f"{INSTALLING}:install", "return _settle(e)", "return []"),
    ),
    _mutant(
        "own_data_are_given_again",
        "PROTOCOL 7",
        "A state machine that keeps its data itself is given after a restart what it has applied before.",
        ("craft.applying:Applier.run", "merged.position <= self.ahead.position", "False"),
    ),
    _mutant(
        "own_data_behind_the_snapshot_are_used",
        "PROTOCOL 7",
        "What lies between them and the snapshot is never applied to them.",
        ("craft.restoring:begin", "own.position < head.position", "not own.position"),
    ),
    _mutant(
        "restored_data_are_still_ahead",
        "PROTOCOL 7",
        "A peer's snapshot has replaced them by older ones, and what comes behind it is passed over.",
        ("craft.restoring:restore", "applier.ahead = LastApplied()", "pass"),
    ),
    _mutant(
        "captured_ahead_of_the_merge",
        "PROTOCOL 7",
        "A snapshot says that it is of the position that is merged, and its state is of a later one.",
        (f"{CAPTURING}:_due", "not readable(e)", "s.restoring or s.unfounded"),
    ),
    _mutant(
        "read_ahead_of_the_merge",
        "PROTOCOL 6, 7",
        "A read says that it is of the position that is merged, and sees a later one.",
        ("craft.engine.reading:serve", "capturing.readable(e)", "True"),
    ),
)

MEMBERSHIP = "craft.raft.membership"

MEMBERS = (
    _mutant(
        "candidate_that_is_left_out_goes_on",
        "PROTOCOL 8",
        "Who learns while it stands that it is left out campaigns all the same.",
        (f"{ELECTION}:_tally", "if not membership.stands(r):", "if False:"),
    ),
    _mutant(
        "other_machines_vote",
        "PROTOCOL 8",
        "Who lives under the id of another disk gives its vote to who does not know that disk.",
        (f"{ELECTION}:handle_request_vote", "current = ours and ", "current = "),
    ),
    _mutant(
        "reporters_word_of_itself_is_not_asked",
        "PROTOCOL 6, 8",
        "A reader that knows no disk counts every reporter as the founder of its id.",
        ("craft.reads:QuorumReads._covered", "self._is_voter(groups[group].configuration, server)", "True"),
    ),
    _mutant(
        "former_lives_count",
        "PROTOCOL 8",
        "A server that joined takes the removal of its id's former machine for its own.",
        ("craft.engine.membership:note_own", "version >= e.roll.version", "True"),
        ("craft.engine.state:EngineState.removed", "and not self._votes", ""),
    ),
    _mutant(
        "heard_before_it_was_wanted",
        "PROTOCOL 8",
        "A server is caught up by what it said before the change that adds it again.",
        ("craft.engine.membership:_caught_up_here", "peer.reached_at >= e.wished_at", "True"),
    ),
    _mutant(
        "requests_wait_twice",
        "PROTOCOL 5",
        "A leader's queue takes every repetition of what waits in it.",
        ("craft.engine.proposing:enqueue", "if proposal[:3] in queue.foreign:", "if False:"),
    ),
    _mutant(
        "joint_is_left_out",
        "Raft 6; dissertation 4.3; PROTOCOL 8",
        "From one set of voters to the next at once.",
        (
            f"{MEMBERSHIP}:_joint",
            "Configuration(voters, prepared.voters, learners,",
            "Configuration(voters, frozenset(), prepared.members - voters,",
        ),
    ),
    _mutant(
        "configuration_upon_an_uncommitted_one",
        "dissertation 4.3; Ongaro 2015",
        "A leader starts the next step before the last is committed.",
        (f"{MEMBERSHIP}:may_change", "and configuration_known(r)", ""),
        (f"{MEMBERSHIP}:configuration_known", "r.configuration_at.index <= r.commit_index", "True"),
    ),
    _mutant(
        "configuration_before_an_entry_of_the_term",
        "Ongaro 2015",
        "A leader changes its group before anything of its term is committed.",
        (f"{MEMBERSHIP}:may_change", "and r.commit_place.term == r.term", ""),
    ),
    _mutant(
        "newer_version_goes_on_from_joint",
        "PROTOCOL 8 (†), attack 18",
        "Joint is left for what is wanted by now, not for what it says.",
        (
            f"{MEMBERSHIP}:next_step",
            "return _kept(now, voters=now.voters)",
            "return _kept(now, voters=frozenset(goal.disks) or now.voters)",
        ),
    ),
    _mutant(
        "older_wish_is_worked_for",
        "PROTOCOL 8 (†), attack 18",
        "A leader that has not merged the newest wish works for the one before.",
        (f"{MEMBERSHIP}:next_step", "if goal.version < now.version:", "if False:"),
    ),
    _mutant(
        "wiped_server_votes_under_its_old_id",
        "PROTOCOL 8",
        "The voter is the id, whichever disk it is on.",
        (f"{MEMBERSHIP}:counts", "bound is None or r.disks.get(server) == bound", "True"),
    ),
    _mutant(
        "former_voter_does_not_stand",
        "PROTOCOL 8 (†), attack 5",
        "Whom an uncommitted configuration leaves out waits for those that it names.",
        (f"{MEMBERSHIP}:stands", "return not configuration_known(r) and _was_voter(r)", "return False"),
    ),
    _mutant(
        "change_is_done_when_it_is_appended",
        "PROTOCOL 8",
        "A change is told as done before every group has committed it.",
        ("craft.engine.membership:_committed", "if membership.configuration_known(r):", "if True:"),
    ),
    _mutant(
        "read_by_the_readers_own_configuration",
        "PROTOCOL 6 (†), attack 2",
        "A majority of a configuration that is long gone answers a read.",
        (
            "craft.reads:QuorumReads._covered",
            "max((groups[group] for groups in self._reports.values()), key=lambda g: g.configuration_at)",
            "next(iter(self._reports.values()))[group]",
        ),
    ),
    _mutant(
        "disk_is_not_told_again",
        "PROTOCOL 8",
        "A server that is wanted again while it runs has opened its session long ago, and is bound by none.",
        ("craft.engine.membership:_bind_own", "proposing.propose_open(e)", "pass"),
    ),
    _mutant(
        "wiped_server_counts_from_one",
        "PROTOCOL 5 (†), attack 19",
        "A server on an empty disk numbers its sessions as if its id were new.",
        ("craft.engine.proposing:begin_session", "if e.counter == 0:", "if False:"),
    ),
    _mutant(
        "session_is_opened_without_reading_first",
        "PROTOCOL 5 (†), attacks 3, 19",
        "A starting server opens its session before it knows what its id was answered.",
        (
            "craft.engine.core:Engine._begin",
            "e.reads.add(reading.SessionRead())",
            "proposing.begin_session(e)",
        ),
    ),
)

MUTANTS = (
    *_needing("", ELECTIONS),
    *LOGS,
    *MERGE,
    *SESSIONS,
    *LEVELS,
    *CLOCKS,
    *READS,
    *STORAGE,
    *_needing("suspects", SUSPECTS),
    *_needing("snapshots", SNAPSHOTS),
    *_needing("members", MEMBERS),
)

ALIVE: tuple[str, ...] = ()
"""Those that no seed has caught yet in the time given: holes in the net, known by name."""
