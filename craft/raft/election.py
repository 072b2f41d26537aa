"""Elections: pre-vote, vote, step down, hand over, and the deposing of a leader that lost its quorum.

Knows: one replica's state and the instant it is told. Must not know: other groups, I/O.

Invariants
- One vote a term, durable before it is answered; the candidate's own vote counts when it is durable.
- A voter that heard a live leader within the least election timeout refuses everyone but a hand-over's
  candidate.
- A learner never stands; a former voter does until it knows that it is left out (PROTOCOL 8, †).
- Of a vote the disk counts too: another one under a voter's id has no vote (PROTOCOL 8).
- What a suspect grants, the candidate itself included, counts only where every voter grants (PROTOCOL 10).

Reference: Raft 5.2, 5.4.1; dissertation 3.10 (transfer), 4.2.3 and 9.6 (PreVote, CheckQuorum); PROTOCOL 1, 9.
"""

from __future__ import annotations

from craft import quorum
from craft.marks import mark
from craft.messages import RequestVote, RequestVoteResult, TimeoutNow
from craft.raft import membership, suspicion
from craft.raft.progress import Progress
from craft.raft.state import MS, RaftState, Role
from craft.types import ServerId, Term


def set_deadline(r: RaftState, now: int) -> None:
    """Draw a new randomised election timeout (Raft 5.2)."""
    spread = r.rng.randint(r.limits.election_timeout_ms_min, r.limits.election_timeout_ms_max)
    r.election_timeout = spread * MS
    r.election_deadline = now + r.election_timeout


def become_follower(r: RaftState, term: Term, leader: ServerId | None, now: int) -> None:
    """Follow `leader` (None: not known yet) in `term`."""
    assert term >= r.term
    assert not (r.leads and term == r.term and leader is not None), "two leaders in one term"
    if r.leads:
        suspicion.resign(r)
    if term > r.term:
        r.term, r.vote, r.hard_dirty = term, None, True
        r.verified, r.leader_persisted, r.leader_commit, r.ack_due = 0, 0, 0, False
    elif r.leader_id not in (None, leader) and leader is not None:
        raise AssertionError(f"group {r.group} term {term}: leaders {r.leader_id} and {leader}")
    if r.leads or leader is not None:
        r.heard_at = now  # who led until now has not been without a leader
    r.role, r.leader_id = Role.FOLLOWER, leader
    r.progress, r.votes = {}, {}
    r.noop_due, r.transfer_to, r.probed = False, None, True
    set_deadline(r, now)


def heard_leader(r: RaftState, now: int) -> None:
    """The current leader spoke."""
    r.heard_at = now
    r.election_deadline = now + r.election_timeout


def leader_alive(r: RaftState, now: int) -> bool:
    """Is there a leader that this replica honours (dissertation 4.2.3)?"""
    if r.leads:
        return True
    if r.leader_id is None or r.leader_id in r.gone:
        return False
    return now - r.heard_at < r.limits.election_timeout_ms_min * MS


def tick(r: RaftState, now: int) -> None:
    """Time has passed: campaign, give up a transfer, or step down without a quorum."""
    if r.leads:
        _check_quorum(r, now)
        if r.transfer_to is not None and now >= r.transfer_deadline:
            _give_up_transfer(r)
        elif not r.votes_here and not r.configuration.joint and membership.configuration_known(r):
            _retire(r, now)
    elif now >= r.election_deadline and membership.stands(r):
        pre_campaign(r, now)


def _give_up_transfer(r: RaftState) -> None:
    """It did not take over: go on leading (dissertation 3.10). Nor is it told to in this very turn."""
    mark("transfer given up")
    r.transfer_to = None
    r.outbox = [(peer, message) for peer, message in r.outbox if type(message) is not TimeoutNow]


def _retire(r: RaftState, now: int) -> None:
    """A leader that the configuration leaves out led until that was committed; now it goes (Raft 6).

    It hands over, as any leader that goes on purpose: nobody waits for an election timeout.
    """
    recent = now - r.limits.election_timeout_ms_min * MS
    alive = [peer for peer in sorted(r.progress) if r.progress[peer].active_at > recent]
    heirs = [peer for peer in alive if peer in r.configuration.voters]
    if r.transfer_to is not None:
        return
    if r.retiring or not heirs:  # it did not work, or there is nobody
        mark("removed leader stepped down")
        become_follower(r, r.term, None, now)
        return
    mark("removed leader hands over")
    r.retiring = True
    transfer(r, max(heirs, key=lambda peer: r.progress[peer].counted), now)


def _check_quorum(r: RaftState, now: int) -> None:
    """A leader that has not heard a quorum for an election timeout steps down (dissertation 6.2)."""
    timeout = r.limits.election_timeout_ms_min * MS
    if now - r.quorum_checked_at < timeout:
        return
    r.quorum_checked_at = now
    active = {peer for peer, progress in r.progress.items() if now - progress.active_at < timeout}
    if not quorum.is_quorum(r.configuration, active | {r.me}):
        mark("leader without a quorum stepped down")
        become_follower(r, r.term, None, now)


def leader_refused(r: RaftState, rank: int, now: int) -> None:
    """The leader's host refuses connections: it is gone.

    Campaign in turn, so that survivors do not split the vote.
    """
    if not r.leads and membership.stands(r):
        stagger = r.limits.election_stagger_ms * MS
        r.election_deadline = min(
            r.election_deadline, now + rank * stagger + r.rng.randrange(1 + stagger // 4)
        )


def pre_campaign(r: RaftState, now: int) -> None:
    """Ask whether a campaign could win, without raising any term (dissertation 9.6)."""
    assert membership.stands(r) and not r.leads
    r.role, r.leader_id, r.votes = Role.PRE_CANDIDATE, None, {r.me: True}
    r.doubtful = set()
    set_deadline(r, now)
    _retry_soon(r, now)
    _ask(r, pre=True, transfer=False)
    _tally(r, now)


def _retry_soon(r: RaftState, now: int) -> None:
    """While a dead server is known, who could not win tries again soon, not after a whole timeout.

    Only pre-candidates, who wait for no disk, and candidates who have lost: to begin again while votes are
    under way would give up every election of servers whose disks are slower than this.
    """
    if r.gone:
        few = r.limits.election_stagger_ms * 4
        # Who has lost was not alone: the machine is so busy that turns were not far enough apart.
        most = few * (2 if r.role is Role.PRE_CANDIDATE else 4)
        r.election_deadline = min(r.election_deadline, now + r.rng.randint(few, most) * MS)


def campaign(r: RaftState, now: int, *, transfer: bool) -> None:
    """Raft 5.2: raise the term, vote for oneself (counted once durable), ask everyone."""
    assert membership.stands(r) and not r.leads
    r.term, r.vote, r.hard_dirty = r.term + 1, r.me, True
    r.verified, r.leader_persisted, r.leader_commit, r.ack_due = 0, 0, 0, False
    r.role, r.leader_id, r.votes = Role.CANDIDATE, None, {}
    r.doubtful = set()
    if transfer:
        r.transfer_term = r.term
    set_deadline(r, now)
    _ask(r, pre=False, transfer=transfer)


def _ask(r: RaftState, *, pre: bool, transfer: bool) -> None:
    message = _question(r, pre=pre, transfer=transfer)
    for peer in sorted((r.configuration.voters | r.configuration.outgoing) - {r.me}):
        r.send(peer, message)


def _question(r: RaftState, *, pre: bool, transfer: bool) -> RequestVote:
    term = r.term + 1 if pre else r.term
    return RequestVote(r.group, term, r.log.last_index, r.log.last_term, pre, transfer)


def link_restored(r: RaftState, peer: ServerId) -> None:
    """A new connection: what an election asked or answered on the old one may be lost. Say it again.

    Else an election among servers of which one has just been started again lasts until somebody's timeout.
    """
    if r.role in {Role.PRE_CANDIDATE, Role.CANDIDATE}:
        if peer in r.configuration.voters | r.configuration.outgoing and peer not in r.votes:
            pre = r.role is Role.PRE_CANDIDATE
            r.send(peer, _question(r, pre=pre, transfer=not pre and r.transfer_term == r.term))
    elif r.vote == peer and r.leader_id is None:
        r.send(peer, RequestVoteResult(r.group, r.term, granted=True, pre=False, suspect=r.suspect))


def own_vote_durable(r: RaftState, now: int) -> None:
    """(term, vote) are durable: the candidate's own vote counts now (PROTOCOL 1)."""
    if r.role is Role.CANDIDATE and r.vote == r.me and r.me not in r.votes:
        r.votes[r.me] = True
        _tally(r, now)


def handle_request_vote(r: RaftState, sender: ServerId, m: RequestVote, now: int) -> None:
    """Raft 5.2 and 5.4.1, with PreVote and the leader's lease on its voters."""
    if leader_alive(r, now) and not m.transfer and m.term > r.term:
        mark("vote refused for a leader's sake")
        # Dissertation 4.2.3: a server that is being served does not let anyone disturb the term.
        r.send(sender, RequestVoteResult(r.group, r.term, granted=False, pre=m.pre, suspect=r.suspect))
        return
    if m.term > r.term and not m.pre:
        if m.transfer:
            r.transfer_term = m.term
        become_follower(r, m.term, None, now)
    # Under the id of another disk it has no vote to give, least of all to who does not know it (PROTOCOL 8).
    ours = membership.counts(r, r.me)
    current = ours and (m.last_term, m.last_index) >= (r.log.last_term, r.log.last_index)
    if m.pre:
        granted = current and m.term > r.term
        r.send(
            sender,
            RequestVoteResult(r.group, m.term if granted else r.term, granted, pre=True, suspect=r.suspect),
        )
        return
    granted = current and m.term == r.term and r.vote in (None, sender) and not r.leads
    if granted and r.vote is None:
        r.vote, r.hard_dirty = sender, True
        set_deadline(r, now)
    r.send(sender, RequestVoteResult(r.group, r.term, granted, pre=False, suspect=r.suspect))


def handle_request_vote_result(r: RaftState, sender: ServerId, m: RequestVoteResult, now: int) -> None:
    """Count a vote of the election under way; learn of a higher term."""
    if m.term > r.term and not (m.pre and m.granted):
        become_follower(r, m.term, None, now)
        return
    waiting_for = Role.PRE_CANDIDATE if m.pre else Role.CANDIDATE
    asked = r.term + 1 if m.pre and m.granted else r.term
    if r.role is waiting_for and m.term == asked and membership.counts(r, sender):
        r.votes[sender] = m.granted
        if m.suspect:
            r.doubtful.add(sender)
        _tally(r, now)


def _tally(r: RaftState, now: int) -> None:
    if not membership.stands(r):
        # It did when it asked. Since then it has learnt that what leaves it out is committed.
        mark("removed candidate gave up")
        r.role, r.votes = Role.FOLLOWER, {}
        return
    suspects = r.doubtful | {r.me} if r.suspect else r.doubtful
    outcome = quorum.vote_outcome(r.configuration, _without_the_dead(r), suspects)
    if outcome is quorum.Outcome.WON:
        if r.role is Role.PRE_CANDIDATE:
            campaign(r, now, transfer=False)
        else:
            become_leader(r, now)
    elif outcome is quorum.Outcome.LOST:
        mark("election lost")
        r.role, r.votes = Role.FOLLOWER, {}
        _retry_soon(r, now)  # else the deadline for another try is the one drawn when asking


def _without_the_dead(r: RaftState) -> dict[ServerId, bool]:
    """A candidate counts on no vote of a server that is known to be dead.

    Else two survivors who stood at once, and so refuse each other, would both wait a whole timeout for it. A
    pre-candidate tries again soon as it is; and it should go on at once where the server comes back.
    """
    return r.votes if r.role is Role.PRE_CANDIDATE else dict.fromkeys(r.gone, False) | r.votes


def become_leader(r: RaftState, now: int) -> None:
    """Lead the term; the no-op that commits what earlier terms left (Raft 8) is appended in the same turn."""
    assert r.role is Role.CANDIDATE and r.votes.get(r.me) and not r.hard_dirty
    r.role, r.leader_id, r.votes = Role.LEADER, r.me, {}
    r.progress = {peer: Progress(next_index=r.log.last_index + 1, now=now) for peer in r.peers()}
    r.noop_due, r.quorum_checked_at, r.heard_at = True, now, now
    r.transfer_to, r.retiring = None, False
    suspicion.lead(r)


def transfer(r: RaftState, target: ServerId, now: int, *, hold_ms: int = 0) -> None:
    """Hand the group over (dissertation 3.10).

    No new commands, and TimeoutNow once the target has everything. It is to stay there for `hold_ms`.
    """
    assert r.leads and target in r.progress and target in r.configuration.voters
    r.transfer_to, r.transfer_hold_ms = target, hold_ms
    r.transfer_deadline = now + r.limits.election_timeout_ms_min * MS
    maybe_time_out_now(r)


def maybe_time_out_now(r: RaftState) -> None:
    """Send TimeoutNow as soon as the target of a transfer holds the whole log."""
    if r.transfer_to is not None and r.progress[r.transfer_to].counted == r.log.last_index:
        r.send(r.transfer_to, TimeoutNow(r.group, r.term, r.transfer_hold_ms))


def handle_timeout_now(r: RaftState, sender: ServerId, m: TimeoutNow, now: int) -> None:
    """The leader hands over: campaign at once. Heeded from the leader of this very term only."""
    if (
        m.term == r.term
        and r.leader_id == sender
        and r.role is Role.FOLLOWER
        and r.me in r.configuration.voters
        and membership.counts(r, r.me)
    ):
        mark("leadership taken over")
        campaign(r, now, transfer=True)
