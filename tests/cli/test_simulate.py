"""`craft simulate`: many seeds, one seed, a shrunk script, and what goes wrong on the command line."""

from __future__ import annotations

import json
import re
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from craft.cli import main
from craft.testing import report
from craft.testing.moments import ALL_MOMENTS
from craft.testing.plan import MS, SECOND, Fault, Plan
from craft.testing.trace import KINDS
from tests.cli.running import craft, start

QUICK = ("--seed-start", "30", "--seeds", "2", "--jobs", "1", "--workload", "counter")

RISE = {"at": 0, "kind": "rise", "choice": 1}
RAIN = {"number": 1, "kind": "rain", "at": 0, "duration": 0, "choice": 0}

LINE = re.compile(r"^ *(\d+\.\d{6}) +(-|\d+) (\w+) +(-|\d+) +(-|\d+)( .*)?$")
"""The documented columns of a trace."""


def hopeless(directory: Path) -> Path:
    """A plan that fails: a disk so slow that nothing is complete in time. And things that do not matter."""
    faults = tuple(Fault(number, "clock_jump", number * 10 * MS, 20 * MS, number) for number in range(1, 6))
    plan = Plan(
        5, 3, 3, clients=2, duration=200 * MS, sync=(100 * SECOND, 100 * SECOND), faults=faults, turn=(0, MS)
    )
    file = directory / "hopeless.json"
    file.write_text(plan.to_json(), encoding="utf-8")
    return file


def test_many_seeds_end_in_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """On the screen, and the same ones as JSON."""
    assert main(["simulate", *QUICK, "--json", str(tmp_path / "figures.json")]) == 0
    text = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert re.search(r"^seeds +2 \(30 to 31\) in .* a second, 1 process$", text, re.MULTILINE)
    assert (figures["seeds"], figures["first_seed"], figures["last_seed"]) == (2, 30, 31)
    assert f"{figures['operations']}, {figures['answered']} answered" in text
    assert f"{figures['virtual_hours_per_cpu_hour']:.1f} virtual cluster-hours per CPU-hour" in text
    assert figures["virtual_hours"] > figures["cpu_hours"] > 0
    assert f"{sum(figures['faults'].values())}: " in text
    for name in [*figures["faults"], *figures["marks"]]:
        assert name in " ".join(text.split())
    assert figures["failures"] == []
    assert "every property held in every seed" in text


def test_seeds_run_twice_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """In two processes, with two PYTHONHASHSEEDs."""
    assert main(["simulate", *QUICK, "--twice"]) == 0
    assert "2 of 2 seeds took the same course in two processes" in capsys.readouterr().out


def test_one_seed_tells_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    """The same each time, whether events are printed or not."""
    hashes = []
    for options in ([], [], ["--trace"]):
        assert main(["simulate", "--seed", "30", *options]) == 0
        hashes.append(re.findall(r"^trace +([0-9a-f]{16})$", capsys.readouterr().out, re.MULTILINE))
    assert hashes[0] == hashes[1] == hashes[2] != []


def test_a_trace_has_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """One line an event, in the order of time, of known kinds."""
    assert main(["simulate", "--seed", "30", "--trace"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == report.COLUMNS
    events = [line for line in lines if re.match(r" *\d+\.\d{6} ", line)]
    found = [LINE.match(line) for line in events]
    assert len(events) > 50
    assert all(found)
    times = [float(one[1]) for one in found if one]
    assert times == sorted(times)
    assert {one[3] for one in found if one} <= set(KINDS)


def test_a_run_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Into the file, in the window that was asked for, also beside a trace; the same each time."""
    file, again = tmp_path / "run.svg", tmp_path / "again.svg"
    command = ["simulate", "--seed", "30", "--svg-window", "100..300", "--svg"]
    assert main([*command, str(file)]) == 0
    assert f"picture       {file}\n" in capsys.readouterr().out
    assert main([*command, str(again), "--trace"]) == 0
    assert capsys.readouterr().out.startswith(report.COLUMNS)
    assert file.read_bytes() == again.read_bytes()
    texts = {one.text or "" for one in ET.parse(file).iter()}
    assert {"craft simulate --seed 30", "server 1", "merged log"} <= texts
    assert any(one.startswith("Virtual time 100 ms to 300 ms, of a run of ") for one in texts)


def test_a_failing_run_is_drawn_with_its_violation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The end of it, unless another part is asked for. What is not in the run is one line."""
    script, file = hopeless(tmp_path), tmp_path / "run.svg"
    assert main(["simulate", "--replay", str(script), "--svg", str(file)]) == 1
    assert "VIOLATED: liveness: every server of the healthy majority" in file.read_text(encoding="utf-8")
    file.unlink()
    capsys.readouterr()
    assert main(["simulate", "--replay", str(script), "--svg", str(file), "--svg-window", "900000.."]) == 1
    assert "--svg-window begins at 900000 ms: the run has ended at 60200 ms" in capsys.readouterr().err
    assert not file.exists()


def test_a_search_draws_the_first_seed_that_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And says so where none does."""
    from craft.cli import parser
    from craft.cli.simulate import Search, Task
    from craft.testing.parallel import examine

    file = tmp_path / "run.svg"
    assert main(["simulate", *QUICK, "--svg", str(file)]) == 0
    assert f"{file} is not written: no seed failed that can be drawn" in capsys.readouterr().out
    assert not file.exists()
    plan = Plan.from_json(hopeless(tmp_path).read_text(encoding="utf-8"))
    task = Task(parser().parse_args(["simulate", "--seeds", "1", "--jobs", "1", "--svg", str(file)]))
    task.recipe = task.recipe.__class__(plan=plan)
    search = Search(task)
    search.take(0, examine(plan, seed=5))
    search.draw()
    assert "VIOLATED: liveness" in file.read_text(encoding="utf-8")


def test_kinds_of_fault_can_be_switched(tmp_path: Path) -> None:
    """One by one or by class; what is switched off does not happen."""
    file = tmp_path / "figures.json"
    only = ["--only", "servers,cut_link", "--without", "pause,stop"]
    assert (
        main(["simulate", "--seed-start", "5", "--seeds", "2", "--jobs", "1", "--json", str(file), *only])
        == 0
    )
    faults = json.loads(file.read_text(encoding="utf-8"))["faults"]
    allowed = {"kill", "power_off", "crash_all", "crash_pair", "power_cut", "crash_in_recovery", "cut_link"}
    happened = {kind for kind, count in faults.items() if count}
    assert happened
    assert happened <= allowed


def test_a_failure_is_told_with_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The property, what was seen, the last events, the command; exit code 1 with one line on stderr."""
    script = hopeless(tmp_path)
    assert main(["simulate", "--replay", str(script)]) == 1
    told = capsys.readouterr()
    assert "seed 5: VIOLATED: liveness\n  every server of the healthy majority [1, 2, 3] becomes" in told.out
    assert "last events (after " in told.out
    assert f"repeat: craft simulate --replay {script}\n" in told.out
    assert told.err == "craft: error: 1 of 1 seeds violate a property\n"


def test_a_failure_in_a_search_is_told_as_well(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It failed in another process; it is told alike, and is in the JSON."""
    script, file = hopeless(tmp_path), tmp_path / "figures.json"
    assert main(["simulate", "--replay", str(script), "--twice", "--json", str(file)]) == 1
    text = capsys.readouterr().out
    assert "seed 5: VIOLATED: liveness" in text
    assert "1 of 1 seeds took the same course" in text
    (failure,) = json.loads(file.read_text(encoding="utf-8"))["failures"]
    assert (failure["seed"], failure["property"]) == (5, "liveness")
    assert failure["repeat"] == f"craft simulate --replay {script}"


def test_where_a_shrunk_plan_goes_is_looked_at_before_the_search(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default as well: hours of it shall not end with an error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed-5.json").mkdir()
    assert main(["simulate", "--replay", str(hopeless(tmp_path)), "--shrink"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "its default 'seed-5.json' is not allowed; allowed: a file" in told.err


def test_a_failure_is_shrunk_to_a_script_that_fails_alike(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What does not matter is gone; the script that is written can be replayed."""
    out = tmp_path / "small.json"
    assert main(["simulate", "--replay", str(hopeless(tmp_path)), "--shrink", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "run 1, smaller faults: 3 servers, 3 groups, 2 clients of counter, 0.2 s, 0 faults\n" in text
    assert "nothing can be left out\n1 server, 1 group, 1 client of" in text
    assert f"repeat: craft simulate --replay {out} --trace\n" in text
    small = Plan.from_json(out.read_text(encoding="utf-8"))
    assert (small.servers, small.groups, small.faults, small.turn) == (1, 1, (), (0, 0))
    assert main(["simulate", "--replay", str(out)]) == 1
    assert "VIOLATED: liveness" in capsys.readouterr().out


def test_what_does_not_fail_cannot_be_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    """One line says so."""
    assert main(["simulate", "--seed", "30", "--shrink"]) == 1
    assert "seed 30 violates nothing: there is nothing to shrink" in capsys.readouterr().err


def test_the_repeating_command_keeps_what_shapes_a_seed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A process that is killed on a seed names the command with the options that draw the same plan."""
    from craft.cli import parser
    from craft.cli.simulate import Task

    words = ["simulate", "--seeds", "5", "--only", "disks", "--without", "hung_disk", "--workload", "list"]
    kinds = "slow_disk,hung_disk,fail_sync,full_disk,nearly_full,hung_disks"
    command = Task(parser().parse_args(words)).repeat(7)
    assert command == (f"craft simulate --seed 7 --only {kinds} --without hung_disk --workload list")
    again = Task(parser().parse_args(command.split()[1:]))
    assert again.single == Task(parser().parse_args(words)).recipe.draw(7)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "0"], "'0' is not allowed; allowed: 1 to"),
        (["--minutes", "soon"], "'soon' is not allowed; allowed: more than 0, at most 10080"),
        (["--only", "cut_link,rain"], "'rain' is not allowed; allowed: links, "),
        (["--workload", "bank"], "invalid choice: 'bank'"),
        (["--trace"], "--trace needs --seed or --replay"),
        (["--seed", "1", "--out", "x.json"], "--out needs --shrink"),
        (["--seed", "1", "--minutes", "1"], "--minutes is not allowed with --seed"),
        (["--seed", "1", "--replay", "x"], "not allowed with argument --seed"),
        (["--replay", "x", "--workload", "list"], "--workload is not allowed with --replay"),
        (["--light", "--only", "links"], "--only is not allowed with --light"),
        (["--seed", "1", "--twice", "--trace"], "--trace is not allowed with --twice"),
        (["--seed", "1", "--svg", "/no/such/run.svg"], "'/no/such/run.svg' is not allowed; allowed: a file"),
        (["--svg-window", "1..2"], "--svg-window needs --svg"),
        (["--svg", "x", "--svg-window", "7"], "'7' is not allowed; allowed: FROM..TO in virtual ms"),
        (["--svg", "x", "--svg-window", "9..8"], "'9..8' is not allowed; allowed: FROM..TO"),
        (["--seed", "1", "--shrink", "--svg", "x"], "--svg is not allowed with --shrink"),
        (["--seed", "1", "--twice", "--svg", "x"], "--svg is not allowed with --twice"),
        (["--json", "/no/such/directory/x"], "'/no/such/directory/x' is not allowed; allowed: a file in an"),
    ],
)
def test_wrong_options_end_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    """They name the value and what is allowed."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "Expecting property name"),
        ("[]", "not a plan"),
        ('{"format": 99}', "not a plan of format 1"),
        ('{"format": 1, "seed": 1, "limits": {}, "faults": [], "colour": 1}', "'colour'"),
        (
            '{"format": 1, "seed": 1, "limits": {}, "faults": [], "workload": "bank"}',
            "workload 'bank' is not",
        ),
        (
            json.dumps({"format": 1, "seed": 1, "limits": {}, "faults": [RAIN]}),
            "fault kind 'rain' is not allowed; allowed: cut_link,",
        ),
        (
            json.dumps({"format": 1, "seed": 1, "limits": {}, "faults": [], "changes": [RISE]}),
            "kind of change 'rise' is not allowed; allowed: add, add_dead,",
        ),
    ],
)
def test_what_is_no_script_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, told: str
) -> None:
    """The file, and what is wrong with it."""
    file = tmp_path / "x.json"
    file.write_text(text, encoding="utf-8")
    assert main(["simulate", "--replay", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"craft: error: {file}: ")
    assert told in line


def test_a_script_may_wait_for_every_moment(tmp_path: Path) -> None:
    """Also for those that only some seeds draw: what `--shrink` writes can be replayed."""
    faults = tuple(
        Fault(number, "pause", at=0, duration=MS, choice=1, on=moment)
        for number, moment in enumerate(ALL_MOMENTS)
    )
    file = tmp_path / "x.json"
    file.write_text(Plan(seed=1, clients=1, duration=10 * MS, faults=faults).to_json(), encoding="utf-8")
    assert main(["simulate", "--replay", str(file)]) == 0


def test_a_script_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No traceback."""
    assert main(["simulate", "--replay", str(tmp_path / "no.json")]) == 1
    assert "no.json: cannot be read: No such file" in capsys.readouterr().err


def test_ctrl_c_tells_what_was_reached(tmp_path: Path) -> None:
    """The figures so far, the exit code of an interrupted command, and no process left behind."""
    process = start("simulate", "--light", "--minutes", "30", "--jobs", "2", directory=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "craft simulate: seeds from 1 in 2 processes\n"
    process.send_signal(signal.SIGINT)
    with process.stdout:
        text = process.stdout.read()  # to its end: whoever held the pipe is gone
    assert process.wait() == 130
    assert text.startswith("ended by Ctrl-C; what was reached so far:\nseeds ")
    assert "Traceback" not in text


def test_it_runs_as_a_command(tmp_path: Path) -> None:
    """Processes of its own can be started from `python -m craft`."""
    finished = craft("simulate", *QUICK, directory=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("craft simulate: seeds from 30 in 1 process\n")
