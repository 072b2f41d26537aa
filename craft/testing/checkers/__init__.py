"""Small, separate properties; `standard()` is all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from craft.testing.checkers.answers import (
    AnswersArePlaced,
    CommittedIsKept,
    ExactlyOnce,
    RealTime,
    RejectedHasNoEffect,
)
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.clients import ClientSessionsAgree
from craft.testing.checkers.durability import (
    AcknowledgementsAreDurable,
    CommitsAreDurable,
    CountedIsHeld,
    VotesAreDurable,
)
from craft.testing.checkers.elections import (
    HandOversAreReady,
    HungLeadersStepDown,
    LeaderCompleteness,
    LeadersAreElected,
    OneLeader,
    OneVote,
    TermsAreRemembered,
)
from craft.testing.checkers.histories import Linearizable, Replay
from craft.testing.checkers.ledger import Ledger
from craft.testing.checkers.logs import (
    CommittedInItsTerm,
    CommittedStays,
    Invariants,
    LogMatching,
    StampsRise,
    StateMachineSafety,
    TermsCoverLogs,
)
from craft.testing.checkers.membership import (
    ConfigurationsOverlap,
    DoneIsDone,
    OneChangeAtATime,
    RemovedInItsLife,
)
from craft.testing.checkers.merging import (
    ClosedTimestampsHold,
    MergedDigestsAgree,
    MergedInOrder,
    MergedLogsAgree,
    ResultsAgree,
    StatesAgree,
)
from craft.testing.checkers.queues import WaitsOnce
from craft.testing.checkers.snapshots import AnyKeptSnapshotBegins, NewestSnapshotBegins
from craft.testing.checkers.suspects import ClearedIsWhole, SuspectsSaySo
from craft.testing.checkers.traffic import NoCircles
from craft.testing.model import Model

__all__ = ["Checker", "Violation", "standard"]


def standard(*, model: Model | None = None, machine: Callable[[], Any] | None = None) -> list[Checker]:
    """All checkers, fresh, for one run.

    With a model, client histories are judged by it; with a machine's factory, by the merged log replayed.
    """
    ledger = Ledger()
    once = ExactlyOnce(ledger)
    commits = CommitsAreDurable(ledger)
    checkers: list[Checker] = [
        ledger,  # first: the others read it
        OneVote(ledger),
        TermsAreRemembered(),
        OneLeader(ledger),
        LeadersAreElected(ledger),
        LeaderCompleteness(ledger),
        HandOversAreReady(),
        HungLeadersStepDown(),
        VotesAreDurable(),
        AcknowledgementsAreDurable(),
        CountedIsHeld(),
        SuspectsSaySo(),
        ClearedIsWhole(ledger, commits),
        StateMachineSafety(ledger),
        commits,
        CommittedInItsTerm(ledger),
        LogMatching(),
        StampsRise(),
        TermsCoverLogs(ledger),
        CommittedStays(ledger),
        Invariants(ledger),
        ClosedTimestampsHold(ledger),
        MergedLogsAgree(ledger),
        MergedInOrder(ledger),
        MergedDigestsAgree(),
        ResultsAgree(),
        StatesAgree(),
        once,
        ClientSessionsAgree(once.judged),  # behind it
        RejectedHasNoEffect(),
        AnswersArePlaced(once),
        RealTime(),
        CommittedIsKept(ledger),
        NoCircles(),
        ConfigurationsOverlap(),
        OneChangeAtATime(ledger),
        DoneIsDone(ledger),
        RemovedInItsLife(),
        WaitsOnce(),
        NewestSnapshotBegins(),
        AnyKeptSnapshotBegins(),
    ]
    if machine is not None:
        checkers.append(Replay(ledger, machine))
    if model is not None:
        checkers.append(Linearizable(model, ledger))
    return checkers
