"""The experiments that load a cluster: lists of settings, arrivals, reads, and what is kept under overload.

No test looks at how fast anything was.
"""

from __future__ import annotations

import itertools
import random
from array import array
from pathlib import Path
from typing import Any

import pytest

from bench import groups, throughput
from bench.__main__ import parse
from bench.arrivals import OpenLoad, arrival_figures, arrivals
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
        ("throughput", "--mode", "open", "--rate", "5", "--batch", "10000", "--bytes", "8"),
        "--outstanding-max 10000 times --batch 10000 exceeds 16777216 slots",
    ),
    "a profile of two": (
        ("throughput", "--bytes", "16,64", "--profile", "/tmp"),
        "--profile is for one setting",
    ),
    "nothing to compare": (("groups", "--groups", "3"), "--groups 3 is not allowed; allowed: at least two"),
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
    for experiment in (throughput.EXPERIMENT, groups.EXPERIMENT):
        assert experiment.quick
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
    server: Any = None  # it is never asked
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
