"""Is a state machine deterministic, and if not, what does it look at? A verdict, and words for it.

Knows: replays here and in other processes. Must not know: how the recordings came about.

Invariants
- One thing is varied at a time, so that the verdict names it.
- What could not be checked is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from craft.testing import elsewhere, touches
from craft.testing.elsewhere import Luggage, NotElsewhere, Task
from craft.testing.replays import (
    AGAIN,
    CHECKS,
    HASH,
    STATE,
    Examined,
    Factory,
    Finding,
    Recording,
    difference,
    examine,
    finding,
    touched,
)

HASH_SEEDS = ("1", "2", "3")
"""Values of PYTHONHASHSEED that are compared. Two strings in a set have the same order under all of them once
in four; a run has many."""

SHARED, UNNAMED, PROCESS = "shared", "unnamed", "process"
"""Causes that are told apart afterwards."""

REQUEST_TOLD = 120
ANSWER_TOLD = 300
"""Characters of it in a message."""


class Words(NamedTuple):
    """A cause, for people: what differs, why that usually is, how the two replays differed."""

    verdict: str
    advice: str
    replays: tuple[str, str]
    hints: tuple[str, ...] = ()
    """Kinds of calls that explain it (`craft.testing.touches`)."""


ALL_HINTS = (touches.CLOCK, touches.RANDOM, touches.ENTROPY, touches.PROCESS, touches.ADDRESS, touches.HASH)

NOT = "the state machine is not deterministic: "

UNCONTROLLED = (
    "something depends on what no replay controls: an address (id(), a set of objects), a clock or random"
    " source that was kept in an attribute or default argument, a file, a thread"
)

CAUSES = {
    HASH: Words(
        f"{NOT}it answers differently under another PYTHONHASHSEED",
        "something iterates over a set (or takes from one), or uses hash() of a str or bytes: sort first, or"
        " use a dict, which keeps its order",
        ("with one PYTHONHASHSEED", "with another"),
        (touches.HASH,),
    ),
    PROCESS: Words(
        f"{NOT}it answers differently in another process",
        "something depends on the process: os.getpid(), id(), the order of a set of objects that are hashed"
        " by their address, a file, the environment",
        ("in one process", "in another"),
        ALL_HINTS,
    ),
    SHARED: Words(
        f"{NOT}two machines in one process share state",
        "a mutable class attribute, module global or default argument is changed by all of them: make it in"
        " __init__ (self.x = …)",
        ("from a machine that had the process to itself", "from another beside or after it"),
    ),
    AGAIN: Words(
        f"{NOT}a second replay of the same log in the same process answers differently",
        "either machines share state (a mutable class attribute, module global or default argument), or"
        f" {UNCONTROLLED}",
        ("the first time", "another time"),
        ALL_HINTS,
    ),
    UNNAMED: Words(
        f"{NOT}no two replays of the same log answer alike",
        UNCONTROLLED,
        ("in one replay", "in another"),
        ALL_HINTS,
    ),
    "clock": Words(
        f"{NOT}it answers differently at another time",
        "it reads a clock, and each server applies at another time: use batch.timestamp, which is equal on"
        " all servers",
        ("at one time", "at another"),
        (touches.CLOCK,),
    ),
    "random": Words(
        f"{NOT}it answers differently with other random numbers",
        "it uses the module random, which is seeded differently on each server: draw before you propose, and"
        " put what was drawn into the command; or seed a random.Random with batch.position",
        ("with one random seed", "with another"),
        (touches.RANDOM,),
    ),
    "entropy": Words(
        f"{NOT}it answers differently with other bytes of os.urandom()",
        "uuid4(), secrets, SystemRandom and random.Random() without a seed take their numbers from there:"
        " draw before you propose, and put what was drawn into the command",
        ("with some random bytes", "with others"),
        (touches.ENTROPY,),
    ),
    "batches": Words(
        "an answer of the state machine depends on which commands share a batch",
        "commands that are proposed at the same time travel together, by chance: each must give the same"
        " alone. (If you use a command's number in its batch on purpose, pass skip='batches'.)",
        ("in the batches of the log", "with each command in a batch of its own"),
    ),
    "queries": Words(
        "a query changes the state machine",
        "each server answers other queries: query() must not change anything, not even fill a defaultdict",
        ("with the queries of the run", "without them"),
    ),
    "snapshots": Words(
        "the state machine does not go on from a snapshot as it was captured",
        "snapshot() leaves something out that apply_batch or query looks at, what it returned yields what was"
        " changed later, or restore() does not replace everything that was there before",
        ("from a machine that applied all of the log", "from one that was restored from its own snapshot"),
    ),
}


@dataclass(frozen=True)
class Judgement:
    """What came of all replays."""

    finding: Finding | None
    left_out: tuple[str, ...]
    """Checks that could not be made, and why."""
    replayed: int = 0
    """Recordings that were."""


def judge(factory: Factory, recordings: Sequence[Recording], *, skip: Collection[str] = ()) -> Judgement:
    """Replay recordings in every way that is not to be skipped."""
    checks = [check for check in CHECKS if check not in skip]
    if not checks:
        return Judgement(None, ())
    try:
        luggage = elsewhere.pack(factory)
    except NotElsewhere as error:
        return _judge_here(factory, recordings, checks, str(error))
    seeds = HASH_SEEDS if HASH in checks else HASH_SEEDS[:1]
    found = elsewhere.run(
        [(seed, Task(luggage, recordings, () if at else checks)) for at, seed in enumerate(seeds)]
    )
    failed = next((one.left_out for one in found if one.left_out), "")
    if failed:
        return _judge_here(factory, recordings, checks, failed)
    seen = found[0].finding
    if seen is not None:
        return Judgement(_hinted(factory, recordings, _refined(luggage, recordings, seen, found[0])), ())
    for at, (one, other) in enumerate(pairwise(found)):
        seen = _first(recordings, one, other)
        if seen is not None:
            names = f"with PYTHONHASHSEED={seeds[at]}", f"with PYTHONHASHSEED={seeds[at + 1]}"
            refined = _refined(luggage, recordings, replace(seen, replays=names), found[0])
            return Judgement(_hinted(factory, recordings, refined), ())
    return Judgement(None, (), len(recordings))


def _judge_here(
    factory: Factory, recordings: Sequence[Recording], checks: Collection[str], why: str
) -> Judgement:
    """Without another process: all but the hashes of strings."""
    left_out = (f"another PYTHONHASHSEED ({why})",) if HASH in checks else ()
    found = examine(factory, recordings, checks=checks)
    if found.left_out:
        return Judgement(None, (*left_out, f"replays ({found.left_out})"))
    seen = found.finding
    hinted = None if seen is None else _hinted(factory, recordings, seen)
    return Judgement(hinted, left_out, len(recordings))


def _first(recordings: Sequence[Recording], one: Examined, other: Examined) -> Finding | None:
    for recording, these, those in zip(recordings, one.answers, other.answers, strict=True):
        place = difference(these, those)
        if place is not None:
            return finding(recording, HASH, place, these, those)
    return None


def _refined(luggage: Luggage, recordings: Sequence[Recording], seen: Finding, before: Examined) -> Finding:
    """A fresh process like the first one tells two causes apart: does it answer as that did?"""
    if seen.cause not in (AGAIN, HASH):
        return seen
    [fresh] = elsewhere.run([(HASH_SEEDS[0], Task(luggage, recordings))])
    alike = not fresh.left_out and _first(recordings, before, fresh) is None
    if seen.cause == AGAIN:
        return replace(seen, cause=SHARED if alike else UNNAMED)
    return seen if alike else replace(seen, cause=PROCESS, replays=None)


def _hinted(factory: Factory, recordings: Sequence[Recording], seen: Finding) -> Finding:
    """With the lines that explain it."""
    hints = CAUSES[seen.cause].hints
    if not hints:
        return seen
    [recording] = [one for one in recordings if one.seed == seen.seed]
    found = touched(factory, recording)
    return replace(seen, touches=tuple(site for kind in hints for site in found.get(kind, ())))


# -- words -----------------------------------------------------------------------------------------


def words(seen: Finding) -> Iterator[str]:
    """A finding, in lines: the verdict first."""
    cause = CAUSES[seen.cause]
    yield cause.verdict
    yield f"  {cause.advice}"
    yield f"  position {seen.position}, {_asked(seen)}:"
    for when, answer in zip(seen.replays or cause.replays, seen.answers, strict=True):
        yield f"    {_told(answer, ANSWER_TOLD)} {when}"
    for site in seen.touches:
        yield f"  seen at {site}"


def _asked(seen: Finding) -> str:
    if seen.what == STATE:
        return "digest of the state"
    of = f" ({seen.number} of {seen.count})" if seen.count > 1 else ""
    return f"{seen.what} {_told(repr(seen.request), REQUEST_TOLD)}{of}"


def _told(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
