"""The harness: figures that can be trusted, a failure where servers differ, and nothing left behind.

No test looks at how fast anything was.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.__main__ import EXPERIMENTS, parse
from bench.beside import Beside, related
from bench.ending import SIGNALS, unless_signalled
from bench.experiment import OptionError
from bench.figures import cluster_figures, percentile
from bench.idle import _failures
from bench.loading import differences, evenly
from bench.processes import BenchError, Plan, configs, free_ports
from bench.pulse import longest_gap
from bench.workload import KEY_BYTES, CapturedTable, Source, Table
from craft import Batch

ROOT = Path(__file__).resolve().parents[2]

HEAD = {
    "experiment",
    "question",
    "date",
    "commit",
    "command",
    "settings",
    "machine",
    "versions",
    "failures",
    "doubts",
}
SHORT = ("--seconds", "1")
SMALL = ("--warmup", "0.2", "--tasks", "2", "--batch", "50", "--bytes", "16", "--bare", "0.05")
TINY_BULK = ("throughput", *SHORT, *SMALL)


def bench(*arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run the program, with the servers' data in a place that must be empty again afterwards."""
    data = place / "data"
    data.mkdir()
    done = subprocess.run(
        (sys.executable, "-m", "bench", *arguments, "--dir", str(data), "--json", str(place / "result.json")),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert list(data.iterdir()) == []
    return done


def result_of(done: subprocess.CompletedProcess[str], place: Path) -> dict[str, Any]:
    """The result of a valid run."""
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((place / "result.json").read_text(encoding="utf-8"))
    assert result.keys() >= HEAD
    assert result["failures"] == []
    assert {"cores", "python", "kernel", "file_system"} <= result["machine"].keys()
    assert {"craft", "trio", "rocksdict", "msgpack"} <= result["versions"].keys()
    return result


# -- whole runs ------------------------------------------------------------------------------------


@pytest.mark.system
@pytest.mark.parametrize("mode", ["bulk", "awaited"])
def test_throughput_counts_every_command_once(mode: str, tmp_path: Path) -> None:
    """Whatever was answered was applied by each server, and the figures that are promised are there."""
    beside = (sys.executable, "-c", "'print(\"figure 1,000\")'")
    done = bench(
        *TINY_BULK, "--mode", mode, "--clients", "7", "--keys", "unique",
        "--beside", " ".join(beside), "--beside-figure", "figure ([0-9,]+)", place=tmp_path,
    )  # fmt: skip
    result = result_of(done, tmp_path)
    assert {
        "applied_per_second", "p50_ms", "p99_ms", "cpu_seconds_per_server", "sync_p50_ms", "turns_per_second",
        "entries_per_second", "frames_per_second", "log_bytes_per_payload_byte", "fdatasync_p50_ms",
    } <= result.keys()  # fmt: skip
    assert result["settings"]["mode"] == mode
    assert [server["server_id"] for server in result["servers"]] == [1, 2, 3]
    agreed = result["agreed"]
    assert agreed["applied"] == agreed["answered"] == agreed["keys"] > 0
    assert [run["figure"] for run in result["beside"]] == [1000, 1000]
    assert result["ratio_to_beside"] == pytest.approx(result["applied_per_second"] / 1000, abs=0.001)
    assert "figure 1,000" in done.stdout
    assert result["bare_ratio"] == pytest.approx(
        result["applied_per_second"] / result["bare_per_second"], abs=0.001
    )


@pytest.mark.system
def test_a_difference_between_servers_fails_the_run(tmp_path: Path) -> None:
    """One falsified command on one server is found: exit code 1, and the result says so."""
    done = bench(*TINY_BULK, "--plant-difference", place=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    failures = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["failures"]
    assert "FAILED" in done.stdout
    assert any(failure.startswith("state_digest differs: server 1: ") for failure in failures)


@pytest.mark.system
def test_latency_shows_the_disk_beside_it(tmp_path: Path) -> None:
    """The median of a lone client stands beside the disk's own, with the verdict that follows."""
    result = result_of(bench("latency", *SHORT, "--warmup", "0.2", place=tmp_path), tmp_path)
    assert result["bound_ms"] == pytest.approx(3 * result["fdatasync_p50_ms"] + 2, abs=0.01)
    assert result["within_bound"] == (result["p50_ms"] <= result["bound_ms"])
    assert result["p50_ms"] <= result["p99_ms"]
    assert result["agreed"]["applied"] == result["agreed"]["answered"] >= result["calls"] > 0
    single = result["single_leader_p50_ms"]
    assert result["ratio"] == pytest.approx(result["p50_ms"] / single, abs=0.01)
    assert result["committed_ratio"] == pytest.approx(result["committed_p50_ms"] / single, abs=0.01)


@pytest.mark.system
def test_idle_sees_a_cluster_that_writes_nothing(tmp_path: Path) -> None:
    """Exit code 0 means that nothing was written; the CPU of all servers is summed."""
    result = result_of(bench("idle", *SHORT, "--groups", "6", "--quiet", "1", place=tmp_path), tmp_path)
    assert (result["writes"], result["syncs"]) == (0, 0)
    assert not result["bytes_written"]
    assert result["cpu_percent"] == pytest.approx(
        sum(one["cpu_percent"] for one in result["servers"]), abs=0.01
    )


@pytest.mark.system
def test_failover_watches_every_kill(tmp_path: Path) -> None:
    """Two kills under load: each has its stall beside a calm time, and no write is lost or repeated."""
    load = ("--clients", "2", "--tasks", "1")
    result = result_of(bench("failover", *load, "--kills", "2", "--watch", "0.3", place=tmp_path), tmp_path)
    assert len(result["kills"]) == 2
    for kill in result["kills"]:
        assert kill["groups_led"] >= 1 and kill["stall_ms"] > 0 and kill["calm_ms"] > 0
    assert result["stall_ms_max"] == max(kill["stall_ms"] for kill in result["kills"])
    assert result["failed_calls"] == [] and result["answered"] > 0


@pytest.mark.system
def test_restarts_fail_no_call(tmp_path: Path) -> None:
    """Every server is stopped by SIGTERM and started again under load: a failed call would fail the run."""
    load = ("--clients", "2", "--tasks", "1")
    result = result_of(bench("restarts", *load, "--rounds", "1", "--pause", "0.2", place=tmp_path), tmp_path)
    assert [restart["server"] for restart in result["restarts"]] == [1, 2, 3]
    assert result["failed_calls"] == [] and result["answered"] > 0
    assert result["waited_ms_max"] >= max(restart["waited_stopping_ms"] for restart in result["restarts"])


@pytest.mark.system
def test_members_come_and_go_and_no_call_fails(tmp_path: Path) -> None:
    """One server, three, five, three, one, under load: a failed call or other members would fail the run."""
    load = ("--clients", "2", "--tasks", "1", "--pause", "0.2")
    result = result_of(bench("members", *load, place=tmp_path), tmp_path)
    assert [step["step"] for step in result["steps"]] == ["1 to 3", "3 to 5", "5 to 3", "3 to 1"]
    assert result["failed_calls"] == [] and result["answered"] > 0
    assert result["waited_ms_max"] == max(step["waited_ms"] for step in result["steps"])


@pytest.mark.system
def test_catchup_is_by_snapshot_and_under_load(tmp_path: Path) -> None:
    """A server that was away for longer than logs are kept is given a snapshot; all hold the same then."""
    small = ("--megabytes", "4", "--snapshot-mib", "1", "--trailing-mib", "1", "--window", "0.5")
    result = result_of(bench("catchup", *small, place=tmp_path), tmp_path)
    assert result["snapshots_installed"] >= 1 and result["caught_up_s"] > 0
    assert result["agreed"]["applied"] == result["agreed"]["answered"] > 0
    assert result["during_over_without"] == pytest.approx(
        result["rate_during"] / result["rate_without"], abs=0.01
    )


@pytest.mark.system
def test_recovery_reads_the_log_and_then_a_snapshot(tmp_path: Path) -> None:
    """One server is killed twice, and has everything afterwards."""
    result = result_of(bench("recovery", "--megabytes", "1", place=tmp_path), tmp_path)
    assert result["log_mb"] >= 1 and result["tail_s"] > 0 and result["snapshot_s"] > 0
    assert result["agreed"]["applied"] == result["agreed"]["answered"]


@pytest.mark.system
def test_growth_looks_at_directories_and_processes(tmp_path: Path) -> None:
    """Snapshots are taken meanwhile, and the bound is of the state and the window that are told."""
    small = ("--commands", "200000", "--snapshot-mib", "1", "--trailing-mib", "1")
    result = result_of(bench("growth", *small, place=tmp_path), tmp_path)
    assert result["commands"] >= 200_000 and min(result["snapshots"]) >= 1
    assert result["directory_mb_max"] == max(one["directory_mb"] for one in result["samples"])
    for sample in result["samples"]:
        assert sum(sample["of_that_mb"].values()) == pytest.approx(sample["directory_mb"], abs=0.5)
    assert result["bound_mb"] == pytest.approx(3 * (result["state_mb"] + 2**20 / 1e6), abs=0.1)


def test_the_longest_gap_counts_from_the_pulse_before() -> None:
    """A stall has some of its time between the two instants; without an end it lasts to the second."""
    pulses = [10, 20, 50, 60]
    assert longest_gap(pulses, from_ns=25, to_ns=55) == 30
    assert longest_gap(pulses, from_ns=12, to_ns=18) == 10
    assert longest_gap(pulses, from_ns=55, to_ns=100) == 40
    assert longest_gap([], from_ns=5, to_ns=9) == 4


def children(pid: int) -> list[str]:
    """The processes that a process started, by whichever of its threads."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for file in files for child in file.read_text(encoding="ascii").split()]


@pytest.mark.system
def test_a_signal_ends_everything(tmp_path: Path) -> None:
    """SIGTERM in the middle of a run: no process and no directory of it is left."""
    command = (sys.executable, "-m", "bench", "throughput", "--seconds", "60", "--dir", str(tmp_path))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as harness:
        try:
            assert harness.stdout is not None
            assert any(line.startswith("… warming up") for line in harness.stdout)
            servers = children(harness.pid)
            assert len(servers) == 3
        finally:
            harness.send_signal(signal.SIGTERM)
        harness.communicate(timeout=60)
    assert harness.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert [server for server in servers if Path(f"/proc/{server}").exists()] == []


def test_handlers_of_signals_are_put_back() -> None:
    """What is left behind would run after Trio has: it took an alarm's interrupt from a later test."""
    before = [signal.getsignal(number) for number in SIGNALS]

    async def work() -> int:
        assert [signal.getsignal(number) for number in SIGNALS] != before
        return 4

    assert trio.run(unless_signalled, work) == 4
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.system
def test_a_command_beside_that_fails_ends_the_run(tmp_path: Path) -> None:
    """No ratio from one run without the other figure: the experiment does not even begin."""
    done = bench(*TINY_BULK, "--beside", f"{sys.executable} -c 'raise SystemExit(7)'", place=tmp_path)
    assert done.returncode == 1
    assert "failed with exit code 7" in done.stderr
    assert not (tmp_path / "result.json").exists()


# -- options ---------------------------------------------------------------------------------------

BAD_OPTIONS = {
    "no experiment": ((), "required: EXPERIMENT"),
    "an unknown experiment": (("speed",), "invalid choice: 'speed'"),
    "no servers": (("throughput", "--servers", "0"), "'0' is not allowed; allowed: whole numbers 1 to 32"),
    "half a client": (("throughput", "--clients", "0.5"), "'0.5' is not allowed; allowed: whole numbers"),
    "commands without room for a key": (("throughput", "--bytes", "7"), "'7' is not allowed; allowed: whole"),
    "commands that no entry holds": (("throughput", "--bytes", "2000000"), "allowed: at most 1048566"),
    "calls that no entry holds": (("throughput", "--batch", "20000"), "at most --batch 15196"),
    "too many slots": (("throughput", "--tasks", "10000", "--batch", "10000"), "exceeds 16777216 slots"),
    "an unknown mode": (("throughput", "--mode", "turbo"), "invalid choice: 'turbo'"),
    "a window that is no time": (("latency", "--seconds", "nan"), "'nan' is not allowed; allowed: 0.1 to"),
    "a directory that is missing": (("idle", "--dir", "/nowhere/at/all"), "is not a directory that exists"),
    "a result that cannot be kept": (("idle", "--json", "/nowhere/at/all.json"), "cannot be written"),
    "a figure of nothing": (("idle", "--beside-figure", "(x)"), "--beside, which is missing"),
    "a figure without a group": (("idle", "--beside", "true", "--beside-figure", "x"), "has 0 groups"),
    "no kill": (("failover", "--kills", "0"), "'0' is not allowed; allowed: whole numbers 1 to 1000"),
    "a half round": (("restarts", "--rounds", "0.5"), "'0.5' is not allowed; allowed: whole numbers"),
    "nobody left to catch up with": (
        ("catchup", "--servers", "2"),
        "--servers 2 is not allowed; allowed: at",
    ),
    "nothing to read": (("recovery", "--megabytes", "0"), "'0' is not allowed; allowed: whole numbers 1 to"),
    "hardly any command": (("growth", "--commands", "1"), "'1' is not allowed; allowed: whole numbers 1000"),
    "half a quotation": (("idle", "--beside", "echo 'x"), "is not a command: No closing quotation"),
}


@pytest.mark.parametrize(("arguments", "complaint"), BAD_OPTIONS.values(), ids=list(BAD_OPTIONS))
def test_a_bad_option_gets_a_clear_error(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 before anything is started, with the option, the value and what is allowed."""
    with pytest.raises(SystemExit) as ended:
        parse(list(arguments))
    assert ended.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_help_tells_the_question_of_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for help learns what each experiment answers."""
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for experiment in EXPERIMENTS.values():
        assert experiment.question in shown


# -- the parts -------------------------------------------------------------------------------------


def test_no_command_is_made_twice() -> None:
    """Servers, slots and rounds all show in a command's first bytes, and only there."""
    rng = random.Random(1)
    sources = [
        Source(origin=origin, first_slot=slot, slots=10, size=24, rng=rng)
        for origin in (1, 2)
        for slot in (0, 10)
    ]
    commands = [command for source in sources for _ in range(5) for command in source.batch()]
    assert len({command[:KEY_BYTES] for command in commands}) == len(commands) == 200
    assert {len(command) for command in commands} == {24}


def test_reused_keys_bound_the_dict_and_unique_ones_keep_everything() -> None:
    """Both apply every command; only the number of keys differs."""
    for keys, count in (("reused", 3), ("unique", 12)):
        table = Table(keys)
        source = Source(origin=1, first_slot=0, slots=3, size=KEY_BYTES, rng=random.Random(1))
        last: list[bytes] = []
        for position in range(4):
            last = source.batch()
            table.apply_batch(Batch(position, 0, last))
        assert (table.applied, len(table.table)) == (12, count)
        assert table.lacking(last) == 0
        assert table.lacking(source.batch()) == 3


def test_a_captured_table_is_restored_whole_and_in_order() -> None:
    """Its digest and its count are those of the moment of the capture, whatever it does meanwhile."""
    table, other = CapturedTable("reused"), CapturedTable("reused")
    commands = [
        round_.to_bytes(4, "big") + b"\1" + slot.to_bytes(3, "big")
        for round_ in (0, 1)
        for slot in range(300)
    ]
    table.apply_batch(Batch(1, 1, commands))
    digest, chunks = table.digest(), table.snapshot()
    table.apply_batch(Batch(2, 2, [b"\0\0\0\7\1\0\0\7"]))
    other.restore(chunks())
    assert (other.digest(), other.applied, len(other.table)) == (digest, 600, 300)


def test_a_digest_tells_content_and_order_apart() -> None:
    """Two servers that applied the same commands in another order do not look alike."""
    batches = [[b"0000aaaa1"], [b"0000bbbb2"]]
    digests = set()
    for order in (batches, batches[::-1], batches[:1], [[b"0000aaaa2"], [b"0000bbbb2"]]):
        table = Table("reused")
        for commands in order:
            table.apply_batch(Batch(1, 0, commands))
        digests.add(table.digest())
    assert len(digests) == 4


def state(**changed: Any) -> dict[str, Any]:
    """What a server reports after a load of ten commands."""
    usual = {
        "merged_position": 4,
        "merged_digest": "m",
        "state_digest": "s",
        "applied": 10,
        "keys": 5,
        "lacking": 0,
    }
    return {**usual, **changed}


def test_servers_that_did_the_same_have_no_differences() -> None:
    """Equal states, and as many commands applied as answered."""
    assert differences([state(), state(), state()], 10) == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"merged_position": 5}, "merged_position differs: server 1: 4, server 2: 5"),
        ({"merged_digest": "x"}, "merged_digest differs: server 1: m, server 2: x"),
        ({"state_digest": "x"}, "state_digest differs: server 1: s, server 2: x"),
        ({"keys": 6}, "keys differs: server 1: 5, server 2: 6"),
        ({"lacking": 2}, "server 2 lacks 2 of the commands"),
        ({"applied": 11}, "server 2 applied 11 commands; callers were answered 10"),
    ],
)
def test_any_planted_difference_is_named(changed: dict[str, Any], complaint: str) -> None:
    """Each thing that is compared is noticed when it alone differs."""
    assert any(complaint in found for found in differences([state(), state(**changed)], 10))


def test_an_answer_for_a_command_that_no_server_applied_is_noticed() -> None:
    """Servers may agree and still have lost something: the callers' count is the other witness."""
    assert len(differences([state(), state()], 11)) == 2


def test_idle_fails_on_any_write() -> None:
    """Writes, syncs and bytes each fail the run; a kernel that does not count bytes does not."""
    clean = {"writes": 0, "syncs": 0, "bytes_written": 0}
    assert _failures(clean) == _failures({**clean, "bytes_written": None}) == []
    for name in clean:
        assert _failures({**clean, name: 1}) == [f"an idle cluster wrote: {name} 1"]


def reading(**changed: Any) -> dict[str, Any]:
    """A server's counters at one end of the window."""
    histogram = {"count": 0, "sum": 0, "max": 0, "quantiles": {"0.5": None, "0.999": None}}
    names = ("turns", "entries_written", "frames_sent", "written_bytes", "received_bytes")
    metrics: dict[str, Any] = {f"craft_{name}_total": 0 for name in names}
    metrics |= {
        "craft_commands_applied_total": 0,
        "craft_sync_seconds": histogram,
        "craft_turn_seconds": histogram,
    }
    usual: dict[str, Any] = {
        "at_s": 0,
        "cpu_s": 0,
        "answered": 0,
        "memory_bytes_max": 0,
        "io": None,
        "terms": 3,
        "led": 1,
        "rungs": {},
    }
    metrics |= changed.pop("metrics", {})
    return {**usual, **changed, "metrics": metrics}


def test_a_command_counts_once_over_the_cluster() -> None:
    """Throughput is what callers were answered, not what the servers applied for it."""
    after = reading(at_s=2, cpu_s=1, answered=100, metrics={"craft_commands_applied_total": 200})
    figures = cluster_figures([{"before": reading(), "after": after}] * 2, [0.001, 0.002], 64)
    assert figures["applied_per_second"] == 100
    assert figures["servers"][0]["applied_per_second"] == 100
    assert figures["cpu_seconds_per_server"] == 1
    assert (figures["p50_ms"], figures["p99_ms"]) == (1, 2)


def test_where_the_time_goes_is_among_a_servers_figures() -> None:
    """The medians of the rungs, as the server's status has them."""
    after = reading(at_s=1, rungs={"appended": {"count": 3, "p50_ms": 0.02, "p99_ms": 1.0}})
    figures = cluster_figures([{"before": reading(), "after": after}], [], 64)
    assert figures["servers"][0]["rungs_p50_ms"] == {"appended": 0.02}


def test_a_window_in_which_nothing_happened_has_no_percentiles() -> None:
    """None stands where there is nothing to tell, and JSON can hold it."""
    figures = cluster_figures([{"before": reading(), "after": reading(at_s=1)}], [], 64)
    assert figures["applied_per_second"] == 0
    assert figures["p50_ms"] is figures["wire_bytes_per_payload_byte"] is None
    json.dumps(figures)


def test_percentiles_are_values_that_occurred() -> None:
    """The least value that the share does not exceed; no interpolation."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert percentile([], 0.5) is None


def test_clients_are_spread_evenly() -> None:
    """No server gets two more than another."""
    assert evenly(1024, 3) == [342, 341, 341]
    assert evenly(1, 3) == [1, 0, 0]


def test_each_server_gets_a_port_and_a_directory_of_its_own(tmp_path: Path) -> None:
    """Configurations are craft's own, so nothing but paths and ports differs."""
    made = configs(Plan(servers=5), tmp_path)
    assert len({config.listen_address for config in made}) == len({config.data_dir for config in made}) == 5
    assert len(set(free_ports(50))) == 50


def test_a_figure_that_is_not_there_is_an_error() -> None:
    """A ratio to nothing would be worse than none."""
    beside = Beside("true", "([0-9]+) a second")
    with pytest.raises(BenchError, match="finds no number in this output"):
        beside.figure_in("no figures")
    assert beside.figure_in("3 a second, 9 a second, 5 a second") == 5
    with pytest.raises(OptionError, match="is not a regular expression"):
        Beside("true", "(").check()


def test_a_ratio_needs_both_figures() -> None:
    """The mean of before and after counts, where there is one."""
    assert related(30.0, [{"figure": 10.0}, {"figure": 20.0}]) == 2
    assert related(30.0, [{"figure": None}, {"figure": None}]) is None
    assert related(None, [{"figure": 1.0}]) is None
