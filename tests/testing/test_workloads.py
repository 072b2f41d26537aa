"""What clients do in a simulation: the same in every process, and judged alike by machine and model."""

from __future__ import annotations

import subprocess
import sys
from random import Random
from typing import Any

import pytest

from craft.state_machine import Batch, Queryable, StateMachine
from craft.testing.history import History
from craft.testing.linearizability import Verdict, check
from craft.testing.workloads import (
    GENERATION_WRITES,
    KEYS,
    WORKLOADS,
    CounterMachine,
    CustomWorkload,
    ListMachine,
    RegisterMachine,
    decode,
    digest,
    encode,
)

NAMES = sorted(WORKLOADS)


def applied(machine: StateMachine, *commands: bytes) -> list[Any]:
    results = machine.apply_batch(Batch(1, 1, list(commands)))
    assert results is not None
    return list(results)


def run(name: str, *, seed: int, operations: int) -> tuple[History, bytes | None]:
    """One client after the other, without faults: what a single copy of the state answers."""
    workload, rng, history = WORKLOADS[name](), Random(seed), History()
    machine = workload.machine()
    assert isinstance(machine, Queryable)
    for at in range(0, 2 * operations, 2):
        if rng.random() < 0.5:
            write = history.invoke(1, 1, "write", workload.next_write(rng), at=at)
            history.ok(write, applied(machine, *write.requests), at + 1, at=at + 1)
        else:
            read = history.invoke(1, 1, "read", workload.next_read(rng), at=at)
            history.ok(read, [machine.query(query) for query in read.requests], None, at=at + 1)
    return history, digest(machine)


# -- machines --------------------------------------------------------------------------------------


def test_a_counter_answers_its_new_value() -> None:
    """So a loss or a second effect shows in the next answer."""
    machine = CounterMachine()
    assert applied(machine, encode("add", 1, 1), encode("add", 1, 2), encode("add", 2, 1)) == [1, 3, 1]
    assert [machine.query(encode("get", key)) for key in (1, 2, 3)] == [3, 1, 0]


def test_a_register_answers_its_value_before() -> None:
    """A compare-and-set changes it only where it answers what was expected."""
    machine = RegisterMachine()
    commands = (encode("set", 1, 5), encode("cas", 1, 4, 6), encode("cas", 1, 5, 7), encode("set", 1, 8))
    assert applied(machine, *commands) == [0, 5, 5, 7]
    assert [machine.query(encode("get", key)) for key in (1, 2)] == [8, 0]


def test_a_list_answers_its_values() -> None:
    """What was read does not change when the list goes on."""
    machine = ListMachine()
    assert applied(machine, encode("append", 1, 5), encode("append", 1, 6)) == [[5], [5, 6]]
    read = machine.query(encode("get", 1))
    applied(machine, encode("append", 1, 7))
    assert read == [5, 6] and machine.query(encode("get", 2)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_digest_is_of_the_state_alone(name: str) -> None:
    """Batches cut otherwise give the same state; one command more, fewer or elsewhere gives another."""
    workload, rng = WORKLOADS[name](), Random(1)
    commands = [command for _ in range(80) for command in workload.next_write(rng)]
    together, apart, fewer = workload.machine(), workload.machine(), workload.machine()
    applied(together, *commands)
    for command in commands:
        applied(apart, command)
    assert digest(together) == digest(apart) != digest(workload.machine())
    applied(fewer, *commands[:40])
    assert digest(fewer) != digest(together)


def test_the_order_of_a_list_is_part_of_its_digest() -> None:
    """Two servers that applied the same in another order differ."""
    one, other = ListMachine(), ListMachine()
    applied(one, encode("append", 1, 5), encode("append", 1, 6))
    applied(other, encode("append", 1, 6), encode("append", 1, 5))
    assert one.digest() != other.digest()


@pytest.mark.parametrize("name", NAMES)
def test_a_request_of_another_workload_is_refused(name: str) -> None:
    """It can only come from a fault in what carried it."""
    machine = WORKLOADS[name]().machine()
    assert isinstance(machine, Queryable)
    for strange in (encode("other", 1, 1), encode("get", 1), b"\xc1", b""):
        with pytest.raises(ValueError):
            applied(machine, strange)
    with pytest.raises(ValueError):
        machine.query(encode("other", 1))


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same_run_in_any_process(name: str) -> None:
    """Whatever the hash seed of strings: requests, results, digest, verdict and number of states."""
    program = (
        "import tests.testing.test_workloads as t;"
        f"history, digest = t.run({name!r}, seed=3, operations=200);"
        f"print(list(history), digest, t.check(history, t.WORKLOADS[{name!r}]().model))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1 and "linearizable" in seen.pop()


@pytest.mark.parametrize("name", NAMES)
def test_machine_and_model_agree(name: str) -> None:
    """Written apart from each other, they give the same answers."""
    history, _ = run(name, seed=5, operations=300)
    model = WORKLOADS[name]().model
    assert model is not None
    assert check(history, model).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("name", NAMES)
def test_a_model_believes_no_wrong_answer(name: str) -> None:
    """Any one answer that is off by one, or lacks its last value, is a violation."""
    model = WORKLOADS[name]().model
    assert model is not None
    for at in range(1, 60, 7):
        history, _ = run(name, seed=5, operations=60)
        operation = history[at]
        assert operation.results is not None
        last = operation.results[-1]
        operation.results = [*operation.results[:-1], last + 1 if isinstance(last, int) else [*last, 0]]
        assert check(history, model).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("name", ["register", "list"])
def test_no_value_is_written_twice(name: str) -> None:
    """Whoever reads a value knows which command wrote it."""
    workload, rng = WORKLOADS[name](), Random(2)
    values = [decode(command)[-1] for _ in range(500) for command in workload.next_write(rng)]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", NAMES)
def test_operations_contend_for_few_keys_and_then_for_fresh_ones(name: str) -> None:
    """A write stays in its generation, a read asks it or an earlier one; some have several requests."""
    workload, rng = WORKLOADS[name](), Random(2)
    earlier = several = 0
    for number in range(10 * GENERATION_WRITES):
        for requests, is_write in ((workload.next_write(rng), True), (workload.next_read(rng), False)):
            generations = {decode(request)[1] // KEYS for request in requests}
            assert len(generations) == 1
            now = (number if is_write else number + 1) // GENERATION_WRITES
            assert generations == {now} if is_write else max(generations) <= now
            earlier += max(generations) < now
            several += len({decode(request)[1] for request in requests}) > 1
    assert earlier > 20 and several > 50


def test_some_compare_and_sets_succeed_and_some_fail() -> None:
    """Else one half of the register would not be tested."""
    history, _ = run("register", seed=1, operations=400)
    outcomes = {
        decode(request)[2] == result
        for operation in history
        for request, result in zip(operation.requests, operation.results or (), strict=True)
        if decode(request)[0] == "cas"
    }
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", NAMES)
def test_requests_have_words(name: str) -> None:
    """For explanations."""
    model = WORKLOADS[name]().model
    assert model is not None
    assert model.describe(encode("append", 7, 3)) == "append key 7, 3"


# -- a state machine of the user's own -------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply_batch(self, batch: Batch) -> list[int]:
        start = len(self.commands)
        self.commands += batch
        return list(range(start, len(self.commands)))


def test_a_user_brings_machine_commands_and_queries() -> None:
    """Without a model, and with reads only where there are queries."""
    silent = CustomWorkload(Log, lambda rng: rng.randbytes(2))
    asking = CustomWorkload(Log, lambda rng: rng.randbytes(2), lambda rng: b"?", name="log")
    rng = Random(1)
    writes = [silent.next_write(rng) for _ in range(100)]
    assert {len(write) for write in writes} == {1, 2, 3, 4}
    assert silent.next_read(rng) == () and set(asking.next_read(rng)) == {b"?"}
    assert {type(silent.machine()) for _ in range(2)} == {Log}
    assert silent.model is None
    assert (silent.name, asking.name) == ("custom", "log")
    assert digest(silent.machine()) is None


def test_commands_of_a_user_are_bytes() -> None:
    """What else they return is shown."""
    workload = CustomWorkload(Log, lambda rng: "text")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="returned 'text'; allowed: bytes"):
        workload.next_write(Random(1))
