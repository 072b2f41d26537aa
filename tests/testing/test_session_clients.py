"""Remote clients in the simulator: what they do, and what is noticed where a session breaks its rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from craft.client_sessions import OpenTag, RequestTag, encode_tagged
from craft.ready import Merged, Verdict
from craft.testing import swarm
from craft.testing.checkers import Violation
from craft.testing.checkers.answers import ExactlyOnce
from craft.testing.checkers.clients import ClientSessionsAgree, Rules
from craft.testing.checkers.ledger import Ledger
from craft.testing.history import Operation, Outcome
from craft.testing.plan import MS, SECOND, Fault, Plan, RemoteClients
from craft.testing.run import Result, Run

QUIET = Plan(1, clients=3, think=(10 * MS, 40 * MS), duration=1 * SECOND, remote=RemoteClients(2, window=3))

TROUBLE = replace(
    QUIET,
    duration=6 * SECOND,
    remote=RemoteClients(
        2,
        ttl_ms=1000,
        window=3,
        patience=50 * MS,
        lost=0.1,
        silence=(900 * MS, 1500 * MS),
        results_bytes_max=600,
    ),
    faults=tuple(
        Fault(number, kind, number * 600 * MS, 500 * MS, number)
        for number, kind in enumerate(("kill", "isolate", "pause", "power_off", "kill", "isolate", "kill"), 1)
    ),
)
"""Sessions that end in cuts and silences, answers that are lost, results that are forgotten."""


def sound(plan: Plan) -> tuple[Run, Result]:
    """A run in which every property holds."""
    made = Run(plan)
    result = made.run()
    assert result.violation is None, result.violation
    return made, result


def writes(made: Run) -> list[Operation]:
    """Of remote clients, in the order of their invocation."""
    return [one for one in made.world.history if one.names]


def test_on_a_quiet_cluster_every_write_is_answered_at_its_effect() -> None:
    """One session a client, numbered from 1 in each, several at once."""
    made, result = sound(QUIET)
    found = writes(made)
    assert len(found) > 50
    # Nobody is refused, and nobody in doubt but who died.
    assert {one.outcome for one in found} <= {Outcome.OK, Outcome.UNKNOWN}
    assert result.operations - result.answered <= 3 * result.marks["client died with calls in flight"]
    numbers: dict[bytes, list[int]] = {}
    for one in found:
        numbers.setdefault(one.names[0].session, []).append(one.names[0].number)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in numbers.values())
    for one in (one for one in found if one.outcome is Outcome.OK):
        assert one.position == one.told == made.world.effects[one.names[-1]].position


def test_trouble_leads_to_every_rare_path() -> None:
    """Of clients and of sessions; and every property holds there too."""
    reached: Counter[str] = Counter()
    outcomes: Counter[Outcome] = Counter()
    for seed in range(1, 4):
        made, result = sound(replace(TROUBLE, seed=seed))
        reached.update(result.marks)
        outcomes.update(one.outcome for one in writes(made))
    assert set(reached) >= {
        "client session expired",
        "client session opened again",
        "client request outside its session",
        "repeated client request dropped",
        "oldest client result forgotten",
        "client's answer lost",
        "client told of its earlier attempt",
        "client told that results are lost",
        "client session ended while uncertain",
        "client call begun anew in another session",
    }
    assert outcomes[Outcome.OK] > 100
    assert outcomes[Outcome.UNKNOWN] > 2


def test_a_seed_with_sessions_is_drawn_beside_all_others() -> None:
    """From a stream of its own: without its remote clients' share a plan is what it was."""
    drawn = [swarm.draw(seed) for seed in range(1, 201)]
    with_sessions = [plan for plan in drawn if plan.remote is not None]
    assert 30 < len(with_sessions) < 70
    assert all(not plan.forwarded for plan in drawn if plan.remote is None)


def test_a_plan_with_remote_clients_that_make_no_sense_is_refused() -> None:
    """As any other that was not written by us."""
    text = QUIET.to_json().replace('"window"', '"door"')
    with pytest.raises(ValueError, match="not a plan"):
        Plan.from_json(text)


# -- what the checkers notice ----------------------------------------------------------------------


def test_a_request_that_is_judged_otherwise_is_found() -> None:
    """By the rules, on any server."""
    made, _ = sound(QUIET)
    checker = ClientSessionsAgree(_checker(made).judged)
    server = made.world.servers[1]
    merged = next(
        one for one in _merged(made) if any(judged.verdict is Verdict.EXECUTED for judged in one.clients)
    )
    checker.applied(server, [merged], [None])
    wrong = tuple(judged._replace(verdict=Verdict.REPEATED) for judged in merged.clients)
    with pytest.raises(Violation, match="judges REPEATED .*; due are EXECUTED"):
        checker.applied(server, [merged._replace(clients=wrong)], [None])


def test_a_server_that_keeps_other_sessions_is_found() -> None:
    """Where nothing has come of it yet, too."""
    made, _ = sound(replace(QUIET, remote=RemoteClients(2, closes=0.0)))
    [checker] = [one for one in made.world.checkers if type(one) is ClientSessionsAgree]
    _, session = next(iter(made.world.servers[2].engine.state.clients.items()))
    session.deadline += 1
    with pytest.raises(Violation, match="server 2 does not keep what server"):
        checker.ended(made.world)


def test_a_write_that_took_effect_in_two_sessions_is_found() -> None:
    """By its names: both are of one call."""
    made, _ = sound(QUIET)
    one, other = writes(made)[:2]
    one.names += (other.names[0],)
    with pytest.raises(Violation, match=f"operation {one.number} of remote client .* at positions"):
        _checker(made).ended(made.world)


def test_a_write_that_was_rejected_and_took_effect_is_found() -> None:
    """Whichever server executed it."""
    made, _ = sound(QUIET)
    one = writes(made)[0]
    one.outcome = Outcome.REJECTED
    with pytest.raises(Violation, match="is told rejected and takes effect at positions"):
        _checker(made).ended(made.world)


def test_the_rules_know_a_session_by_its_place() -> None:
    """A late `open` makes another session of the same id; what was asked in the first has no effect there."""
    rules, name = Rules(), b"s" * 16
    opening = encode_tagged(OpenTag(name, 1000))
    request = encode_tagged(RequestTag(name, 1, 1, 1), b"\x91\xc4\x01x")

    def judge(tagged: bytes, position: int, timestamp: int) -> str:
        due = rules.judge(tagged, position, timestamp)
        assert due is not None
        return due.word[0]

    assert judge(opening, 1, 10) == "OPENED"
    assert judge(request, 2, 20) == "EXECUTED"
    assert judge(request, 3, 30) == "REPEATED"
    assert rules.expire(30 + 1000 * MS) == []
    assert rules.expire(31 + 1000 * MS) == [("EXPIRED", name, 1, 0)]
    assert judge(opening, 4, 2 * SECOND) == "OPENED"
    assert judge(request, 5, 2 * SECOND) == "ENDED"
    assert rules.judge(b"\x91\xc4\x01x", 6, 3 * SECOND) is None


def _checker(made: Run) -> ExactlyOnce:
    [found] = [one for one in made.world.checkers if isinstance(one, ExactlyOnce)]
    return found


def _merged(made: Run) -> list[Merged]:
    [ledger] = [one for one in made.world.checkers if isinstance(one, Ledger)]
    return ledger.merged
