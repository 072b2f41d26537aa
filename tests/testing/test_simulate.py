"""A user's own state machine in the simulator: sound ones pass, others are told what they look at."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest

import craft
from craft.testing import UNKNOWN_RESULT, Report, Violated, simulate, touches
from craft.testing.replays import CHECKS
from craft.testing.sameness import same, sight
from craft.testing.surroundings import Controls, Surroundings
from craft.testing.workloads import CounterMachine, CounterModel, encode

ROOT = Path(__file__).resolve().parent.parent.parent

HERE = "hash"
"""Left out where another PYTHONHASHSEED is not what a test is about: that saves two interpreters."""


def commands(rng: Random) -> bytes:
    return rng.choice((b"ann", b"bob", b"cid", b"dan", b"eve", b"fay"))


def queries(rng: Random) -> bytes:
    return commands(rng)


class Names:
    """The names that were given so far, in their order; a sound machine, from which the others differ."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def apply_batch(self, batch: craft.Batch) -> list[Any]:
        return [self.apply(command.decode(), batch) for command in batch]

    def apply(self, name: str, batch: craft.Batch) -> Any:
        self.names.setdefault(name, len(self.names))
        return ",".join(self.names)

    def query(self, query: bytes) -> Any:
        return self.names.get(query.decode())


def violated(machine: Callable[[], Any], **options: Any) -> Violated:
    given: dict[str, Any] = {"commands": commands, "queries": queries, "seeds": 3, "skip": HERE}
    with pytest.raises(Violated) as raised:
        simulate(machine, **(given | options))
    return raised.value


def local(machine: Callable[[], Any]) -> Callable[[], Any]:
    """A factory that no other process can have."""

    def make() -> Any:
        return machine()

    return make


# -- sound machines --------------------------------------------------------------------------------


def test_a_sound_machine_passes_and_the_report_says_what_was_run() -> None:
    """Faults came, commands were answered, replays were made in other processes."""
    report = simulate(Names, commands=commands, queries=queries, seeds=4)
    assert (report.seeds, report.replayed, report.left_out) == (4, 3, ())
    assert 0 < report.answered <= report.operations and report.merged > 0
    assert report.virtual_ns > 4 * 10**9 and sum(report.faults.values()) > 0
    assert str(report).startswith("4 seeds: every property held; ")
    assert f"{report.answered:,} of {report.operations:,} operations answered" in str(report)


class Silent:
    """No results, no queries."""

    def apply_batch(self, batch: craft.Batch) -> None:
        pass


def test_a_machine_without_queries_and_results_passes() -> None:
    """Nothing is read; that what is merged agrees is checked all the same."""
    assert simulate(Silent, commands=commands, seeds=[1], skip=HERE).seeds == 1


def test_a_machine_with_snapshots_passes() -> None:
    """It is captured and restored in clusters, and in the replays."""
    report = simulate(local(Captured), commands=commands, queries=queries, seeds=12, skip=HERE)
    assert (report.replayed, report.left_out) == (3, ())


class Dated(Names):
    """Its snapshots are pickles, of a moment too: a stand-in for its class cannot be pickled."""

    began = datetime(2026, 1, 1, tzinfo=UTC)

    def snapshot(self) -> Callable[[], list[bytes]]:
        pickled = pickle.dumps((self.names, self.began))
        return lambda: [pickled]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.names, self.began = pickle.loads(b"".join(chunks))


def test_snapshots_that_are_pickled_raise_no_alarm() -> None:
    """Time is not held still around them: nothing that is compared comes from there."""
    assert simulate(local(Dated), commands=commands, queries=queries, seeds=[1], skip=HERE).replayed == 1


class Strange(Names):
    """What it answers is equal everywhere, and prints otherwise, or goes on changing."""

    def apply(self, name: str, batch: craft.Batch) -> Any:
        super().apply(name, batch)
        live = self.names
        return [set(live), frozenset(live), {"of": set(live)}, object(), float("nan"), KeyError(name)]

    def query(self, query: bytes) -> Any:
        return self.names


def test_answers_that_are_equal_raise_no_alarm() -> None:
    """Sets under three PYTHONHASHSEEDs, objects at other addresses, a live dict: nothing of it differs."""
    simulate(Strange, commands=commands, queries=queries, seeds=[1])


class Timely(Names):
    """Knows what time it is from every batch, and counts on a first command in it."""

    now = 0

    def apply_batch(self, batch: craft.Batch) -> list[Any]:
        self.now = batch.timestamp + len(batch.commands[0])
        return super().apply_batch(batch)

    def query(self, query: bytes) -> Any:
        return self.now


def test_an_entry_without_commands_is_no_batch() -> None:
    """A replay gives a machine what a server gives it: nothing raises, nothing is left out."""
    report = simulate(local(Timely), commands=commands, queries=queries, seeds=6, skip=HERE)
    assert (report.replayed, report.left_out) == (3, ())


class Numbered(Names):
    """Takes time and fresh numbers from where the docs say."""

    def apply_batch(self, batch: craft.Batch) -> list[Any]:
        drawn = random.Random(batch.position).random()
        return [(batch.position, number, batch.timestamp, drawn) for number, _ in enumerate(batch)]


def test_a_commands_number_in_its_batch_may_be_used_on_purpose() -> None:
    """That depends on the batch; who means it leaves that replay out."""
    simulate(local(Numbered), commands=commands, seeds=3, skip=["batches", HERE])
    assert "pass skip='batches'" in violated(local(Numbered)).detail


def add(rng: Random) -> bytes:
    return encode("add", rng.randrange(3), 1)


def get(rng: Random) -> bytes:
    return encode("get", rng.randrange(3))


def test_a_model_judges_as_well() -> None:
    """A sound one agrees; one that knows better than the machine does not."""

    class Doubling(CounterModel):
        def step(self, state: Any, request: bytes, result: Any) -> Any:
            return super().step(state, request, result if result is UNKNOWN_RESULT else result * 2)

    options: dict[str, Any] = {"commands": add, "queries": get, "seeds": [2, 6, 9], "only": [], "skip": HERE}
    simulate(CounterMachine, model=CounterModel(), **options)
    found = violated(CounterMachine, **options, model=Doubling())
    assert found.property == "linearizability"
    assert "no replay of the merged log shows it" in found.detail
    assert f"model=…, seeds=[{found.seed}], only=[], skip='hash')" in found.repeat


# -- machines that are not deterministic -----------------------------------------------------------


class SetOrder(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        super().apply(name, batch)
        return ",".join(set(self.names))


class Hashing(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return hash(name) % 1000


class Clock(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return int(time.time())


class Calendar(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return (datetime.now(UTC).year, isinstance(datetime.now(UTC), datetime))


class Dice(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return random.randint(1, 6)


class Ids(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return str(uuid.uuid4())


class Bytes(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return os.urandom(4)


class Unseeded(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return random.Random().random()


class BatchSize(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return len(batch)


class Counting(Names):
    """A defaultdict: a query adds what it asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: defaultdict[bytes, int] = defaultdict(int)

    def apply(self, name: str, batch: craft.Batch) -> Any:
        return len(self.asked)

    def query(self, query: bytes) -> Any:
        return self.asked[query]


class Shared(Names):
    """One dict for all machines of a process. It fills up, so that later machines agree again."""

    everyone: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        self.names = self.everyone


class Reset(Names):
    """The same, emptied by each new machine: only machines beside one another notice."""

    everyone: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.everyone.clear()

    def apply(self, name: str, batch: craft.Batch) -> Any:
        self.everyone.append(name)
        return len(self.everyone)


class KeptClock(Names):
    """Out of the reach of any patch."""

    clock = time.perf_counter

    def apply(self, name: str, batch: craft.Batch) -> Any:
        return KeptClock.clock()


class Process(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return os.getpid()


class Digested(Names):
    """Its answers are equal; its state is not."""

    def apply(self, name: str, batch: craft.Batch) -> Any:
        self.names[name] = hash(name)
        return None

    def query(self, query: bytes) -> Any:
        return None

    def digest(self) -> bytes:
        return repr(self.names).encode()


class Captured(Names):
    """Goes on from its snapshots; the next ones do not."""

    def snapshot(self) -> Callable[[], list[bytes]]:
        forked = ",".join(self.names)
        return lambda: [forked.encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.names = {}
        for name in b"".join(chunks).decode().split(","):
            if name:
                self.names[name] = len(self.names)


class Forgetful(Captured):
    """Counts what it was given, and leaves that out of its snapshots."""

    count = 0

    def apply(self, name: str, batch: craft.Batch) -> Any:
        self.count += 1
        return self.count

    def restore(self, chunks: Iterable[bytes]) -> None:
        super().restore(chunks)
        self.count = 0


class Unforked(Captured):
    """What it returns looks at the names when it is called."""

    def snapshot(self) -> Callable[[], list[bytes]]:
        return lambda: [",".join(self.names).encode()]


class Adding(Captured):
    """Does not replace what was there."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        before = self.names
        super().restore(chunks)
        self.names |= before


class Unrestored(Captured):
    def restore(self, chunks: Iterable[bytes]) -> None:
        raise OSError("no room for that")


class Unsound(Captured):
    """Its pieces are no bytes."""

    def snapshot(self) -> Any:
        return lambda: self.names


CAUSES: dict[str, tuple[type, str, str]] = {
    # the machine, the verdict, the line that is seen; replayed in this process
    "time": (Clock, "at another time", "in apply: time.time()"),
    "datetime": (Calendar, "at another time", "in apply: datetime.now()"),
    "random": (Dice, "with other random numbers", "in apply: random.randint()"),
    "uuid4": (Ids, "with other bytes of os.urandom()", "in apply: uuid.uuid4()"),
    "urandom": (Bytes, "with other bytes of os.urandom()", "in apply: os.urandom()"),
    "Random": (Unseeded, "with other bytes of os.urandom()", ""),
    "batches": (BatchSize, "depends on which commands share a batch", ""),
    "queries": (Counting, "a query changes the state machine", ""),
    "a snapshot that forgets": (Forgetful, "does not go on from a snapshot as it was captured", ""),
    "no fork": (Unforked, "does not go on from a snapshot as it was captured", ""),
    "a restore that adds": (Adding, "does not go on from a snapshot as it was captured", ""),
    "a shared list": (Reset, "in the same process answers differently", ""),
}
ELSEWHERE = {
    # and those that need other processes
    "a set's order": (SetOrder, "under another PYTHONHASHSEED", ""),
    "hash": (Hashing, "under another PYTHONHASHSEED", "in apply: hash()"),
    "the state alone": (Digested, "under another PYTHONHASHSEED", "in apply: hash()"),
    "the process": (Process, "in another process", "in apply: os.getpid()"),
    "a shared dict": (Shared, "two machines in one process share state", ""),
    "a kept clock": (KeptClock, "no two replays of the same log", "in apply: time.perf_counter()"),
}


def expect(found: Violated, verdict: str, seen: str, options: str) -> None:
    """The verdict, the place in the log, the guilty line, and how to repeat it."""
    text = str(found)
    assert verdict in found.property and text.startswith(f"seed {found.seed}: {found.property}")
    assert "position " in text and (", command b'" in text or ", query b'" in text or ", digest" in text)
    if seen:
        assert "  seen at test_simulate.py:" in text and seen in text
    assert f"commands=commands, queries=queries, seeds=[{found.seed}]{options})" in text
    assert f"trace: {found.trace}" in text and len(found.trace) == 16


@pytest.mark.parametrize(("machine", "verdict", "seen"), CAUSES.values(), ids=list(CAUSES))
def test_what_a_machine_looks_at_is_named(machine: type, verdict: str, seen: str) -> None:
    """Each cause by its name, although only one thing is wrong in each machine."""
    expect(violated(local(machine)), verdict, seen, ", skip='hash'")


@pytest.mark.parametrize(("machine", "verdict", "seen"), ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_what_only_another_process_shows_is_named(machine: type, verdict: str, seen: str) -> None:
    """In this one all servers hash alike, and share what is shared."""
    found = violated(machine, seeds=[1], skip=())
    expect(found, verdict, seen, "")
    assert f"repeat: simulate({machine.__name__}, " in str(found)


def test_a_failure_names_both_answers_and_their_surroundings() -> None:
    """One sees at once what an order did."""
    lines = violated(SetOrder, seeds=[1], skip=()).detail.splitlines()
    one, other = (line.strip() for line in lines if " with PYTHONHASHSEED=" in line)
    assert one.endswith("with PYTHONHASHSEED=1")
    assert sorted(one.split("'")[1].split(",")) == sorted(other.split("'")[1].split(","))


def test_a_check_can_be_left_out() -> None:
    """Who skips it is not told. Where all are, nothing was replayed."""
    simulate(local(BatchSize), commands=commands, seeds=3, skip=("batches", HERE))
    assert simulate(Hashing, commands=commands, seeds=3, skip=CHECKS).replayed == 0


# -- where another process cannot have it ----------------------------------------------------------


def test_a_local_machine_is_replayed_in_this_process_alone() -> None:
    """What that leaves out is said; all the rest is checked."""

    class Local(Names):
        pass

    report = simulate(Local, commands=commands, seeds=[1])
    [left_out] = report.left_out
    assert left_out.startswith("another PYTHONHASHSEED (it is defined inside a function")
    assert str(report).endswith(f"not checked: {left_out}")


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, *arguments),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


SCRIPT = """\
from craft.testing import simulate

class Names:
    def __init__(self):
        self.names = set()

    def apply_batch(self, batch):
        self.names.update(batch.commands)
        return [{expression} for _ in batch]

def test_it():
    print(simulate(Names, commands=lambda rng: b"%d" % rng.randrange(9), seeds=[1], skip="batches"))
"""


def test_a_script_can_be_simulated(tmp_path: Path) -> None:
    """Its class is found again in the other process, where what is guarded is not run."""
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(expression="list(self.names)") + "\nif __name__ == '__main__':\n    test_it()"
    )
    finished = run(tmp_path, script.name)
    assert "under another PYTHONHASHSEED" in finished.stderr and "repeat: simulate(Names, " in finished.stderr


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """It is not run over and over again in other processes; the rest is checked here."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(expression="1") + "\ntest_it()")
    finished = run(tmp_path, script.name)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "another PYTHONHASHSEED (importing the script calls simulate() again" in finished.stdout


def test_what_is_typed_in_is_told_so(tmp_path: Path) -> None:
    """There is no file that another process could import."""
    finished = run(tmp_path, "-c", SCRIPT.format(expression="1") + "\ntest_it()")
    assert "not checked: another PYTHONHASHSEED (it is defined in an interactive session" in finished.stdout


def test_a_test_that_no_path_leads_to_can_be_simulated(tmp_path: Path) -> None:
    """As pytest imports it; and the failure is what pytest shows."""
    (tmp_path / "test_mine.py").write_text(SCRIPT.format(expression="list(self.names)"))
    finished = run(tmp_path, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider")
    assert "E       craft.testing.Violated: seed 1: " in finished.stdout
    assert "under another PYTHONHASHSEED" in finished.stdout
    assert "craft/testing/user.py" not in finished.stdout


# -- the user's code raises ------------------------------------------------------------------------


class Refusing(Names):
    def apply(self, name: str, batch: craft.Batch) -> Any:
        return {"ann": 1}[name]


def test_a_machine_that_raises_is_shown_with_the_command() -> None:
    """Every server would end there. The user's own traceback is the cause."""
    found = violated(Refusing)
    assert found.property == "the state machine refuses no command by raising"
    assert "apply_batch raised at command 1 of" in found.detail and "at position " in found.detail
    assert isinstance(found.__cause__, KeyError) and found.events == ()


class Asserting(Names):
    def query(self, query: bytes) -> Any:
        raise AssertionError(f"nobody asks {query!r}")


class Asynchronous(Names):
    async def query(self, query: bytes) -> Any:
        return None


class Generating(Names):
    def query(self, query: bytes) -> Any:
        yield self.names[query.decode()]


class BadDigest(Names):
    def digest(self) -> bytes:
        raise AssertionError("no digest of that")


class BadModel(CounterModel):
    def step(self, state: Any, request: bytes, result: Any) -> Any:
        raise AssertionError("no step from there")


class ListKeys(CounterModel):
    def key(self, request: bytes) -> Any:
        return [request]


def modelled(model: Any) -> dict[str, Any]:
    return {"commands": add, "queries": get, "model": model, "only": []}


def nothing(_rng: Random) -> bytes:
    return dict[int, bytes]()[1]


class LateFailure(Names):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        LateFailure.made += 1
        if LateFailure.made > 2:
            raise OSError("no more")


SNAPPING: dict[str, Any] = {"seeds": [7], "only": []}


@pytest.mark.parametrize(
    ("machine", "options", "said", "cause"),
    [
        (Asserting, {}, "query(b'", AssertionError),
        (Asynchronous, {}, "TypeError('it returned a coroutine; allowed: a value", TypeError),
        (Generating, {}, "TypeError('it returned a generator; allowed: a value", TypeError),
        (BadDigest, {}, "digest() raised AssertionError('no digest", AssertionError),
        (CounterMachine, modelled(BadModel()), "model.step(", AssertionError),
        (CounterMachine, modelled(ListKeys()), "unhashable type: 'list'", TypeError),
        (Names, {"commands": nothing}, "commands(rng) raised KeyError(1)", KeyError),
        (Names, {"queries": nothing}, "queries(rng) raised KeyError(1)", KeyError),
        (Unsound, SNAPPING, "what snapshot() returned raised TypeError(", TypeError),
        (LateFailure, {}, "machine() raised OSError('no more')", OSError),
    ],
)
def test_whatever_else_raises_is_the_cause(
    machine: type, options: dict[str, Any], said: str, cause: type
) -> None:
    """An AssertionError of the user's is not taken for one of craft's."""
    found = violated(machine, **options)
    assert found.property == "machine, query, digest, snapshot, commands, queries and model raise nothing"
    assert said in found.detail and isinstance(found.__cause__, cause)


def test_a_machine_that_raises_in_restore_is_not_blamed_on_craft() -> None:
    """In the cluster, where a server starts from its own snapshot or is sent one; not in a replay only."""
    found = violated(Unrestored, seeds=20, skip=CHECKS)
    assert found.property == "the state machine restores what it has captured"
    assert "restore raised: OSError('no room for that')" in found.detail
    assert "please report it" not in found.detail and isinstance(found.__cause__, OSError)


class LateRefusal(Names):
    """As if what it looks at had changed when the merged log is replayed."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        LateRefusal.made += 1
        self.number = LateRefusal.made

    def apply(self, name: str, batch: craft.Batch) -> Any:
        assert self.number != LATE, "too late"
        return name


LATE = 4
"""Two machines are made to look at them, the third for the only server, the fourth for the merged log."""


def test_a_machine_that_raises_in_the_replay_alone_is_not_blamed_on_craft() -> None:
    """An AssertionError of its own is told with the position, and is the cause."""
    options: dict[str, Any] = {"only": [], "seeds": [38], "skip": CHECKS}
    found = violated(LateRefusal, **options)
    assert found.property == "results are those of the merged log"
    assert "apply_batch raised AssertionError('too late" in found.detail
    assert ", and on no server" in found.detail
    assert "please report it" not in found.detail and isinstance(found.__cause__, AssertionError)


def test_commands_that_count_on_are_noticed_when_a_seed_fails() -> None:
    """Such a seed does not repeat a run, and the message says so."""
    made = [0]

    def counting(_rng: Random) -> bytes:
        made[0] += 1
        return b"ann" if made[0] < 10 else b"bob"

    found = violated(Refusing, commands=counting)
    assert "a second run of this seed took another course" in found.detail


# -- arguments -------------------------------------------------------------------------------------

ONE = Names()

WRONG: list[tuple[dict[str, Any], type, str]] = [
    ({"machine": Names()}, TypeError, "machine is <.*Names object.*; allowed: a class, or a function"),
    ({"machine": lambda: ONE}, ValueError, "machine returned the same object twice, <.*Names"),
    ({"machine": object}, TypeError, "machine returned <object.*, which has no method apply_batch"),
    ({"machine": Silent, "queries": queries}, TypeError, "Silent has no method query; allowed: queries=None"),
    ({"commands": b"ann"}, TypeError, "commands is b'ann'; allowed: a function that takes a random.Random"),
    ({"commands": lambda _: "ann"}, TypeError, r"commands\(rng\) returned 'ann'; allowed: bytes"),
    ({"queries": lambda _: None}, TypeError, r"queries\(rng\) returned None; allowed: bytes"),
    ({"seeds": 0}, ValueError, "seeds is 0; allowed: at least 1, or the seeds themselves"),
    ({"seeds": []}, ValueError, "seeds is empty; allowed: at least one"),
    ({"seeds": [1, -2]}, ValueError, "seeds has -2; allowed: integers from 0 on"),
    ({"seeds": 1.5}, TypeError, "seeds is 1.5; allowed: how many, or the seeds themselves"),
    (
        {"seeds": [1], "seed_start": 5},
        ValueError,
        "seed_start is 5 beside seeds=.*; allowed: seeds as a count",
    ),
    ({"seeds": 1, "seed_start": -1}, ValueError, "seed_start is -1; allowed: an integer from 0 on"),
    ({"seeds": 1, "seed_start": "a"}, ValueError, "seed_start is 'a'; allowed: an integer from 0 on"),
    ({"model": CounterModel}, TypeError, "model is <class .*; allowed: an object with the methods key, "),
    ({"without": None}, TypeError, "without is None; allowed: one or several of links, "),
    ({"only": "fire"}, ValueError, "only has 'fire'; allowed: links, frames, .*kill"),
    ({"without": ["kill", "fire"]}, ValueError, "without has 'fire'; allowed: links"),
    ({"skip": "moon"}, ValueError, "skip has 'moon'; allowed: again, clock, random, entropy, batches"),
]


@pytest.mark.parametrize(("options", "kind", "said"), WRONG, ids=[said[:30] for _, _, said in WRONG])
def test_a_wrong_argument_is_named(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    """With its value and with what is allowed."""
    given: dict[str, Any] = {"machine": Names, "commands": commands, "queries": None, "seeds": [1]}
    with pytest.raises(kind, match=said):
        simulate(**(given | options))


def test_kinds_of_fault_are_chosen_as_on_the_command_line() -> None:
    """Single kinds and whole classes."""
    options: dict[str, Any] = {"commands": commands, "seeds": 2, "seed_start": 9, "skip": CHECKS}
    assert set(simulate(Names, only="servers", without=["kill", "stop"], **options).faults) <= {
        *("power_off", "crash_pair", "crash_all", "power_cut", "crash_in_recovery", "pause")
    }
    assert sum(simulate(Names, only=[], **options).faults.values()) == 0


# -- what is told ----------------------------------------------------------------------------------


def test_a_failure_and_a_report_travel_between_processes() -> None:
    """From a worker of whatever runs tests in parallel."""
    found = Violated(7, "a property", "seen", events=["an event"], trace="12", repeat="simulate(…)")
    assert str(pickle.loads(pickle.dumps(found))) == str(found)
    assert "last events:" in str(found) and "an event" in str(found) and isinstance(found, AssertionError)
    report = Report(1, 2, 1, 1, 10**9, {"kill": 1}, 1, ())
    assert pickle.loads(pickle.dumps(report)) == report
    assert str(report).endswith("1 s of virtual time, 1 faults of 1 kinds")


class Money:
    """Judged by its own `__eq__`."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.printed = id(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.amount == other.amount

    def __hash__(self) -> int:
        return hash(self.amount)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a", "b"}, {"b", "a"}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (["a", "b"], ["b", "a"], False),
        ((1, True), (1.0, 1), True),
        ([1], (1,), False),
        (float("nan"), float("nan"), True),
        (Money(1), Money(1), True),
        (Money(1), Money(2), False),
        ([Decimal("1.0")], [Decimal("1.00")], True),
        (b"x" * 9000, b"x" * 9000, True),
        (b"x" * 9000, b"x" * 8999 + b"y", False),
        (ValueError("a"), ValueError("b"), False),
        (Names(), Names(), True),
        ([[]], [[[]]], False),
    ],
)
def test_what_is_equal_is_the_same(one: object, other: object, expected: bool) -> None:
    """However it is printed, wherever it lies, and whatever becomes of it later."""
    assert same(sight(one), sight(other)) is expected


def test_surroundings_are_put_back() -> None:
    """Afterwards the clock, the dates and the random source are those of before."""
    real, state = (time.time, datetime, os.urandom, random.Random.seed), random.getstate()
    controls = Controls()
    with pytest.raises(ZeroDivisionError), controls.around(Surroundings(), 1):
        assert time.time() == time.time() < 1.8e9 and time.time is not real[0]
        assert datetime.now(UTC).year == 2023 and isinstance(real[1].now(UTC), datetime)
        assert time.localtime().tm_year == 2023 and time.strftime("%Y") == "2023"
        _ = 1 / 0
    assert (time.time, datetime, os.urandom, random.Random.seed) == real
    assert random.getstate() == state


def test_touches_tell_the_line_of_the_user() -> None:
    """Not the standard library's, through which it went."""
    found = touches.touches(lambda: Ids().apply("ann", craft.Batch(1, 1, [])))
    assert [site.partition(" ")[2] for site in found["entropy"]] == ["in apply: uuid.uuid4()"]
