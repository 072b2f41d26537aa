"""The experiments that load a cluster: lists of settings, arrivals, reads, and what is kept under overload.

No test looks at how fast anything was.
"""

from __future__ import annotations

import itertools
import random
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import groups, overload, reads, snapshot, throughput
from bench.__main__ import EXPERIMENTS, parse
from bench.arrivals import OpenLoad, arrival_figures, arrivals
from bench.growth import rates
from bench.reading import READS, Board, is_behind, pack, unpack
from bench.setting import change, point
from bench.workload import KEY_BYTES, Source
from tests.bench.test_bench import bench, result_of

BRIEF = ("--seconds", "0.5", "--warmup", "0.2")


def options_of(*arguments: str) -> Any:
    """Those of an experiment, as the program has them."""
    return parse(list(arguments))[1]


# -- whole runs ------------------------------------------------------------------------------------


@pytest.mark.system
def test_throughput_has_a_point_for_each_size_and_number_of_clients(tmp_path: Path) -> None:
    """Every combination is measured as often as was asked for, and each run's figures are kept."""
    lists = ("--mode", "awaited", "--bytes", "16,100", "--clients", "3", "--repeats", "2")
    result = result_of(bench("throughput", *BRIEF, *lists, place=tmp_path), tmp_path)
    assert [(one["bytes"], one["clients"]) for one in result["points"]] == [(16, 3), (100, 3)]
    for one in result["points"]:
        rates = [run["applied_per_second"] for run in one["runs"]]
        spread = one["applied_per_second"]
        assert len(rates) == spread["runs"] == 2
        assert (spread["least"], spread["greatest"]) == (min(rates), max(rates))
        assert all(run["agreed"]["applied"] == run["agreed"]["answered"] > 0 for run in one["runs"])
        assert {"cpu_seconds_per_server", "wire_bytes_per_payload_byte"} <= one.keys()


@pytest.mark.system
def test_open_loop_counts_whatever_arrives(tmp_path: Path) -> None:
    """What arrived in the window was answered, refused, or turned away; and servers agree on the first."""
    load = ("--mode", "open", "--rate", "600", "--batch", "2", "--outstanding-max", "1")
    result = result_of(bench("throughput", *BRIEF, *load, place=tmp_path), tmp_path)
    assert result["offered_per_second"] > 0
    assert result["turned_away_per_second"] > 0 and result["refused_per_second"] == 0
    gone = result["turned_away_per_second"] + result["refused_per_second"]
    offered = (result["offered_per_second"] - gone) / 2 * result["servers"][0]["window_s"]
    assert result["calls"] == pytest.approx(offered, abs=4)  # calls at the window's ends
    assert result["p50_ms"] >= 0 and result["generator_late_p99_ms"] >= 0
    assert result["agreed"]["applied"] == result["agreed"]["answered"] > 0


@pytest.mark.system
@pytest.mark.parametrize(("name", "what"), [("groups", [1, 3]), ("servers", [1, 2])])
def test_clusters_of_several_sizes_are_compared(name: str, what: list[int], tmp_path: Path) -> None:
    """A point a cluster, in order, whose servers agreed."""
    sizes = (f"--{name}", ",".join(map(str, reversed(what))), "--repeats", "1", "--tasks", "2")
    result = result_of(bench(name, *BRIEF, *sizes, place=tmp_path), tmp_path)
    assert [one[name] for one in result["points"]] == what
    for one in result["points"]:
        [run] = one["runs"]
        assert run["agreed"]["applied"] == run["agreed"]["answered"] > 0
        assert one["cpu_us_per_command"]["median"] > 0
    if name == "groups":
        assert (result["base_groups"], result["most_groups"]) == (3, 1)
        assert isinstance(result["within_bound"], bool)


@pytest.mark.system
def test_reads_of_each_kind_see_what_was_answered(tmp_path: Path) -> None:
    """Alone and beside writes; a read that missed an answered write would fail the run."""
    result = result_of(bench("reads", *BRIEF, "--readers", "3", "--repeats", "1", place=tmp_path), tmp_path)
    assert [(one["kind"], one["write_percent"]) for one in result["points"]] == [
        (kind, percent) for kind in READS for percent in (0, 10)
    ]
    for one in result["points"]:
        [run] = one["runs"]
        assert all(server["calls_per_second"] > 0 for server in run["servers"])
        assert run["agreed"]["applied"] == run["agreed"]["answered"] > 0
        assert (run["applied_per_second"] > 0) == (one["write_percent"] > 0)


@pytest.mark.system
def test_overload_is_judged_by_peaks_before_and_after(tmp_path: Path) -> None:
    """All that was taken was answered and applied, whatever was refused."""
    result = result_of(bench("overload", *BRIEF, "--tasks", "1", "--batch", "100", place=tmp_path), tmp_path)
    peaks = [one["applied_per_second"] for one in result["peak"]]
    assert result["peak_per_second"] == pytest.approx(sum(peaks) / 2, abs=0.1)
    assert result["kept_share"] == pytest.approx(
        result["kept_per_second"] / result["peak_per_second"], abs=0.01
    )
    for run in (*result["peak"], result["overload"]):
        assert run["agreed"]["applied"] == run["agreed"]["answered"] > 0


@pytest.mark.system
def test_snapshots_are_taken_and_sent_under_load(tmp_path: Path) -> None:
    """A window with one beside a window without, and a server that could not come back from logs."""
    small = ("--megabytes", "1", "--window", "0.5", "--repeats", "1")
    result = result_of(bench("snapshot", *small, place=tmp_path), tmp_path)
    [both] = result["rounds"]
    slots = snapshot.load_plan(options_of("snapshot", *small)).slots
    assert both["calm"]["applied_per_second"] > 0 and both["snapshot"]["captured_s"] > 0
    assert result["installed_s"] > 0 and result["snapshots_installed"] >= 1
    assert result["agreed"]["keys"] == 2 * 4 * (slots or 0)
    assert result["agreed"]["applied"] == result["agreed"]["answered"] > 0


@pytest.mark.system
def test_latency_is_told_for_each_load_and_rung(tmp_path: Path) -> None:
    """A point a load, each with its rungs."""
    loads = ("--clients", "4", "--percents", "50,20", "--repeats", "1")
    result = result_of(bench("latency-load", *BRIEF, *loads, place=tmp_path), tmp_path)
    assert [one["percent"] for one in result["points"]] == [20, 50]
    for one in result["points"]:
        assert list(one["rungs_ms"]) == ["appended", "persisted", "committed", "merged", "applied"]
        assert one["rungs_ms"]["persisted"]["p999"]["median"] >= one["rungs_ms"]["persisted"]["p50"]["median"]
        assert one["offered_per_second"]["median"] > 0


# -- options ---------------------------------------------------------------------------------------

BAD_OPTIONS = {
    "the same size twice": (
        ("throughput", "--bytes", "64,64"),
        "'64,64' is not allowed; allowed: each number",
    ),
    "a list with a hole": (
        ("throughput", "--bytes", "64,,16"),
        "'' is not allowed; allowed: whole numbers 8",
    ),
    "bulk clients": (
        ("throughput", "--clients", "1,2"),
        "--clients with several numbers is for --mode awaited",
    ),
    "arrivals without a rate": (("throughput", "--mode", "open"), "--mode open needs --rate"),
    "a rate without arrivals": (("throughput", "--rate", "5"), "no other mode takes one"),
    "too many to tell apart": (
        ("throughput", "--tasks", "2000", "--batch", "10000", "--bytes", "8"),
        "--tasks 2000 times --batch 10000 exceeds 16777216 slots",
    ),
    "a profile of two": (
        ("throughput", "--bytes", "16,64", "--profile", "/tmp"),
        "--profile is for one setting",
    ),
    "nothing to compare": (("groups", "--groups", "3"), "--groups 3 is not allowed; allowed: at least two"),
    "reads of no kind": (
        ("reads", "--kinds", "dirty"),
        "'dirty' is not allowed; allowed: some of linearizable",
    ),
    "nobody to read from": (
        ("reads", "--servers", "1"),
        "--servers 1 is not allowed here; allowed: at least 2",
    ),
    "arrivals no entry holds": (
        ("overload", "--batch", "10000", "--bytes", "4096"),
        "makes calls of 41010005",
    ),
    "a load above the peak": (
        ("latency-load", "--percents", "50,100"),
        "'100' is not allowed; allowed: whole",
    ),
    "nobody to send one": (("snapshot", "--servers", "2"), "--servers 2 is not allowed; allowed: at least 3"),
    "no servers among some": (
        ("servers", "--servers", "3,0"),
        "'0' is not allowed; allowed: whole numbers 1",
    ),
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


def test_large_commands_go_in_smaller_calls_where_no_batch_is_given() -> None:
    """A call fits into an entry; what was asked for is not changed."""
    options = options_of("throughput", "--bytes", "16,65536")
    assert [throughput.batch_of(options, size) for size in (16, 65536)] == [1000, 15]
    assert throughput.batch_of(options_of("throughput", "--batch", "7"), 64) == 7
    assert throughput.batch_of(options_of("throughput", "--mode", "open", "--rate", "1"), 64) == 1


def test_every_quick_run_has_options_that_are_allowed() -> None:
    """The report makes these runs without anybody looking."""
    for experiment in EXPERIMENTS.values():
        assert parse([experiment.name, *experiment.quick])[0] is experiment


# -- the parts -------------------------------------------------------------------------------------


def test_arrivals_are_a_poisson_process_that_repeats_itself() -> None:
    """The rate is what was asked for, gaps vary as much as their mean, and a seed decides them."""
    instants = list(itertools.islice(arrivals(100.0, 7), 20_000))
    assert instants == list(itertools.islice(arrivals(100.0, 7), 20_000))
    assert instants != list(itertools.islice(arrivals(100.0, 8), 20_000))
    gaps = [after - before for before, after in itertools.pairwise(instants)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.05)
    assert variance == pytest.approx(mean**2, rel=0.1)


def test_a_call_counts_by_its_planned_arrival_not_by_its_answer() -> None:
    """A stall that ends behind the window shows in the window's latencies."""
    server: Any = SimpleNamespace(config=SimpleNamespace(server_id=1))  # nothing else of it is asked
    load = OpenLoad(server, calls_per_second=1, outstanding_max=1, batch=1, size=8, seed=1)
    load.planned, load.latencies, load.late = (
        array("d", [1, 2, 3]),
        array("d", [9, 8, 7]),
        array("d", [0, 1, 0]),
    )
    latencies, late = load.between(2.0, 3.0)
    assert (list(latencies), list(late)) == ([8], [1])


def test_arrivals_are_told_in_commands_a_second() -> None:
    """Calls of five commands, on two servers over two seconds."""
    before, after = (
        {"at_s": at, "load": {"offered": 20 * at, "refused": 4 * at, "turned_away": at}} for at in (0, 2)
    )
    measured = [{"before": before, "after": after}] * 2
    found = arrival_figures(measured, [{"p99_ms": None}, {"p99_ms": 3.0}], batch=5)
    assert (found["offered_per_second"], found["refused_per_second"]) == (200, 40)
    assert (found["refused_share"], found["turned_away_share"]) == (0.2, 0.05)
    assert found["generator_late_p99_ms"] == 3


def test_a_source_with_a_batch_walks_over_its_slots() -> None:
    """All slots, one part after the other, and no command twice."""
    source = Source(origin=1, first_slot=0, slots=6, size=KEY_BYTES, rng=random.Random(1), batch=2)
    calls = [source.batch() for _ in range(6)]
    assert {len(call) for call in calls} == {2}
    commands = [command for call in calls for command in call]
    assert len(set(commands)) == 12
    assert len({command[4:] for command in commands[:6]}) == len({command[4:] for command in commands}) == 6


def test_a_change_is_of_runs_of_one_round() -> None:
    """A machine that slows down between rounds changes no ratio; a run without a figure has none."""
    first, second = (
        point({"groups": number}, [{"applied_per_second": rate} for rate in rates])
        for number, rates in ((3, [100.0, 50.0, 10.0]), (64, [80.0, 40.0, None]))
    )
    assert change(first, second, "applied_per_second") == [0.8, 0.8]
    found = groups.compared([first, second])
    assert (found["cost_median"], found["within_bound"]) == (0.2, True)
    worse = point({"groups": 64}, [{"applied_per_second": rate} for rate in (50.0, 25.0, 5.0)])
    assert not groups.compared([first, worse])["within_bound"]


def test_pictures_have_a_curve_a_size_over_the_clients() -> None:
    """And one curve over the sizes where the clients do not differ."""
    runs: list[dict[str, Any]] = [{"applied_per_second": 1.0}]
    grid = [point({"bytes": size, "clients": clients}, runs) for size in (16, 64) for clients in (1, 4)]
    assert [(one.name, list(one.x)) for one in throughput.picture(grid).curves] == [
        ("16 bytes", [1, 4]),
        ("64 bytes", [1, 4]),
    ]
    [only] = throughput.picture(grid[::2]).curves
    assert (only.name, list(only.x)) == ("applied", [16, 64])


def test_a_read_is_behind_what_had_been_answered_before() -> None:
    """Another round than the one that was answered, or nothing at all; a later one is not."""
    command = (5).to_bytes(4, "big") + b"\1\0\0\0payload"
    assert [is_behind(command, round_) for round_ in (-1, 4, 5, 6)] == [False, False, False, True]
    assert is_behind(None, 0) and not is_behind(None, -1)


def test_a_board_is_one_for_all_who_open_it(tmp_path: Path) -> None:
    """What one notes the other finds, with the key of its slot; and nothing stands for a slot at first."""
    mine, other = (Board(tmp_path / "board", [1, 0, 2]) for _ in range(2))
    mine.note(3, 1, pack(7, 2**40 - 1))
    rng = random.Random(1)
    found = dict(other.any(rng) for _ in range(100))
    assert {key: unpack(word) for key, word in found.items()} == {
        b"\1\0\0\0": (-1, 0),
        b"\3\0\0\0": (-1, 0),
        b"\3\0\0\1": (7, 2**40 - 1),
    }


def test_only_stale_reads_may_be_behind() -> None:
    """One that missed a write names its kind."""
    runs = [{"reads_behind": 0}, {"reads_behind": 2}]
    points = [{"kind": kind, "write_percent": 10, "runs": runs} for kind in ("session", "stale")]
    [found] = reads.behind(points)
    assert found.startswith("session reads, 10 % writes: 2 did not see a write")


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, True),
        ({"applied_per_second": 89.0}, False),
        ({"p99_ms": 1e9}, False),
        ({"p99_ms": None}, False),
        ({"memory_mb_max": 1e4}, False),
    ],
)
def test_overload_keeps_throughput_latency_and_memory(changed: dict[str, Any], kept: bool) -> None:
    """Each bound alone is missed where it is."""
    options = options_of("overload")
    peak = {"applied_per_second": 100.0, "p99_ms": 1.0, "memory_mb_max": 100.0, "offered_per_second": 0.0}
    assert overload.judge(options, peak, {**peak, **changed}, peak)["within_bound"] is kept


def test_an_overload_that_was_none_is_doubtful() -> None:
    """Too little was offered, or no limit was met."""
    over = {"offered_per_second": 200.0, "refused_per_second": 90.0}
    assert overload.doubtful(over, 200.0) == []
    assert "only 100 a second" in overload.doubtful({**over, "offered_per_second": 100.0}, 200.0)[0]
    assert "no limit refused" in overload.doubtful({**over, "refused_per_second": 0.0}, 200.0)[0]


def test_a_history_of_twice_the_length_is_compared_with_its_first_half() -> None:
    """Ten a second, then five."""
    samples = [{"at_s": 1.0, "commands": 10}, {"at_s": 2.0, "commands": 20}, {"at_s": 6.0, "commands": 40}]
    assert rates(samples) == {"rate_early": 10, "rate_late": 5, "late_over_early": 0.5}
    assert rates(samples[:1])["late_over_early"] is None


def test_a_dip_is_of_windows_that_lie_side_by_side() -> None:
    """A machine that slows down between two rounds has no part in it."""
    rounds = []
    for rate in (100.0, 10.0):
        calm = {"applied_per_second": rate, "p99_ms": 1.0, "longest_ms": 2.0}
        rounds.append(
            {"calm": calm, "snapshot": {**calm, "applied_per_second": rate * 0.8, "captured_s": 1.0}}
        )
    found = snapshot.compared(rounds)
    assert found["dip_median"] == found["dip"]["least"] == found["dip"]["greatest"] == 0.2
    assert found["applied_per_second_snapshot"]["least"] == 8
