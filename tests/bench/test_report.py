"""The page and its targets: what was reached is told from what was missed and from what nobody measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import report, targets
from bench.__main__ import COMMANDS, EXPERIMENTS, main
from bench.experiment import Experiment, Figures, Progress, add_common_options
from bench.page import FAILED, MISSING, RAN, SKIPPED, Ran, block, code, page
from bench.processes import BenchError, NotPossible
from bench.report import EXCLUDED, QUICK_S, VARIANTS, kept, planned, reason, takes, told
from bench.tables import cell, columns, markdown
from bench.targets import (
    AT_LEAST,
    AT_MOST,
    MISSED,
    NOT_MEASURED,
    REACHED,
    TARGETS,
    Target,
    find,
    judge,
    repeating,
)

ROOT = Path(__file__).resolve().parents[2]

HEAD: Figures = {
    "experiment": "made-up",
    "question": "How many?",
    "date": "2026-01-01T00:00:00+00:00",
    "commit": "0123456789abcdef",
    "command": ["python", "-m", "bench", "made-up"],
    "settings": {},
    "machine": {
        "cores": 2,
        "processor": "a | processor",
        "memory_bytes": 1000,
        "system": "Linux",
        "kernel": "6.1",
        "python": "3.11.0",
        "file_system": "ext4",
    },
    "versions": {"craft": "1.0"},
    "beside": [],
    "doubts": [],
    "failures": [],
}

FAST = Target(words="speed", run="made-up", path=(("per_second",),), sense=AT_LEAST, bound=100)
SMALL = Target(words="size", run="made-up", path=(("size_mb",),), sense=AT_MOST, bound=1.5, unit=" MB")


async def _nothing(_options: argparse.Namespace, _progress: Progress) -> tuple[Figures, list[str]]:
    return {"doubts": []}, []


def made_up(name: str = "made-up", **more: Any) -> Experiment:
    """An experiment that measures nothing."""
    given: dict[str, Any] = {
        "question": "How many | are `there`?",
        "figure": "per_second",
        "add_options": add_common_options,
        "run": _nothing,
        "summary": lambda figures: [f"rate         {figures['per_second']:,} | a second"],
        **more,
    }
    return Experiment(name=name, **given)


# -- targets ---------------------------------------------------------------------------------------


def test_targets_are_reached_missed_or_not_measured() -> None:
    """By the bound itself just so; without a result, without a figure, or with a failure not at all."""

    def verdict(target: Target, **figures: Any) -> str:
        [one] = judge([target], {"made-up": {**HEAD, **figures}}, {})
        assert bool(one.why) == (one.verdict == NOT_MEASURED)
        return one.verdict

    assert verdict(FAST, per_second=100) == REACHED
    assert verdict(FAST, per_second=99.9) == MISSED
    assert verdict(SMALL, size_mb=1.5) == REACHED
    assert verdict(SMALL, size_mb=1.51) == MISSED
    assert verdict(FAST, per_second={"median": 101, "least": 1, "greatest": 200, "runs": 3}) == REACHED
    assert verdict(FAST, per_second=None) == verdict(FAST) == verdict(FAST, per_second="120") == NOT_MEASURED
    assert verdict(FAST, per_second=True) == NOT_MEASURED
    assert verdict(FAST, per_second=200, failures=["servers differ"]) == NOT_MEASURED
    [nothing] = judge([FAST], {}, {})
    assert (nothing.verdict, nothing.shown) == (NOT_MEASURED, "-")


def test_a_figure_of_a_list_is_found_by_what_stands_beside_it() -> None:
    """The very item, and none where there is no such item; a run's only point, but not one of several."""
    result = {
        "comparisons": [
            {"limit": "egress", "servers": 3, "ratio": {"median": 2.8}},
            {"limit": "egress", "servers": 5, "ratio": {"median": 4.4}},
            {"limit": "cpu", "servers": 3, "ratio": {"median": None}},
        ],
        "points": [{"rate": 7}],
    }
    found = {
        one.words: find(result, path) for one in TARGETS if one.run == "multileader" for path in one.path
    }
    assert list(found.values()) == [2.8, 4.4, None]
    assert find(result, ("comparisons", "ratio")) is None
    assert find(result, ("points", ("", ""), "rate")) == 7
    assert find({"points": [{"rate": 7}, {"rate": 8}]}, ("points", ("", ""), "rate")) is None


def test_every_target_is_of_a_run_that_a_report_makes() -> None:
    """One of an experiment that is not there yet is not measured, and says so; any other would be a slip."""
    runs = {run.name for run in planned(EXPERIMENTS, quick=True)}
    unknown = {target.run for target in TARGETS} - runs
    assert not {name for name in unknown if name.partition("-")[0] in EXPERIMENTS}
    assert len({target.words for target in TARGETS}) == len(TARGETS)


def test_every_targets_figure_is_one_that_the_documentation_explains() -> None:
    """A figure that was renamed is noticed here, and not as `not measured`."""
    text = (ROOT / "docs" / "how-to" / "benchmark.md").read_text(encoding="utf-8")
    figures = {path[-1] for target in TARGETS for path in target.path}
    assert {name for name in figures if f"`{name}`" not in text} == set()


def test_a_command_is_repeated_without_the_places_where_things_went() -> None:
    """What decides the figures stays."""
    words = ["python", "-m", "bench", "x", "--json", "a.json", "--bytes", "9", "--plot=p", "--dir", "/d"]
    assert repeating(words) == "python -m bench x --bytes 9"


def test_the_program_names_every_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 where one is missed, 0 where what was measured was reached. Other files are passed."""
    result = {**HEAD, "experiment": "throughput", "memory_mb_max": 150.0}
    file = tmp_path / "throughput.json"
    file.write_text(json.dumps(result), encoding="utf-8")
    (tmp_path / "other.json").write_text('{"runs": []}', encoding="utf-8")
    (tmp_path / "cut.json").write_text('{"experiment": "thr', encoding="utf-8")
    assert main(["targets", "--from", str(tmp_path)]) == 0
    assert f"1 reached, 0 missed, {len(TARGETS) - 1} not measured" in capsys.readouterr().out
    file.write_text(json.dumps({**result, "memory_mb_max": 250.0}), encoding="utf-8")
    assert main(["targets", "--from", str(tmp_path)]) == 1
    assert "missed        bulk: memory of a server: 250 MB, wanted at most 200 MB" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_empty_directory_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to tell of it."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--from", str(tmp_path)])
    assert ended.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err


# -- the page --------------------------------------------------------------------------------------


def test_nothing_breaks_out_of_its_cell() -> None:
    """Pipes, line breaks and markup are shown as they are."""
    assert cell("a|b\n*c* `d` <e>") == r"a\|b \*c\* \`d\` \<e\>"
    assert markdown(["x", "y"], [["a|b", "1"]])[2] == r"| a\|b | 1 |"
    assert columns(["x", "y"], [["long", "10"]]) == ["x      y", "long  10"]
    assert code("a|b `c`") == r"`a\|b 'c'`"
    assert block(["```", "x"]) == ["````text", "```", "x", "````"]


def test_the_page_has_whatever_stands_behind_a_figure() -> None:
    """Machine, versions, commit, date, targets; of every run its question, figures, doubts, command."""
    run = Ran(name="made-up", experiment="made-up", options=("--servers", "3"), state=RAN, plots=("m.svg",))
    result = {**HEAD, "per_second": 1234, "doubts": ["a *busy* machine"]}
    text = "\n".join(page([run], {"made-up": result}, {"made-up": made_up()}))
    for part in (
        r"a \| processor, 2 cores", "craft 1.0", "0123456789abcdef", "2026-01-01", "beware: 1 of 1 runs",
        r"How many \| are \`there\`?", "```text\nrate         1,234 | a second\n```", "![made-up](m.svg)",
        r"- beware: a \*busy\* machine", "```text\npython -m bench made-up --servers 3\n```",
        f"0 reached, 0 missed, {len(TARGETS)} not measured.",
    ):  # fmt: skip
        assert part in text


def test_an_experiments_own_table_is_taken() -> None:
    """As Markdown; and a result that it cannot read is told, and stops nothing."""
    experiment = made_up(table=lambda figures: markdown(["rate"], [[str(figures["per_second"])]]))
    run = Ran(name="made-up", experiment="made-up", options=(), state=RAN)

    def text(**figures: Any) -> str:
        return "\n".join(page([run], {"made-up": {**HEAD, **figures}}, {"made-up": experiment}))

    assert "| rate |\n| --- |\n| 12 |" in text(per_second=12)
    assert "cannot be shown: KeyError('per\\_second')" in text()


def test_what_did_not_run_is_named() -> None:
    """At the head and in its place, with the reason; and the exit code tells."""
    runs = [
        Ran(name="good", experiment="made-up", options=(), state=RAN),
        Ran(name="lame", experiment="made-up", options=(), state=SKIPPED, why="no tc here"),
        Ran(name="bad", experiment="made-up", options=(), state=FAILED, why="servers | differ"),
    ]
    text = "\n".join(page(runs, {"good": {**HEAD, "per_second": 1}}, {"made-up": made_up()}))
    assert text.count("skipped: no tc here") == 1 and "- skipped: lame (no tc here)" in text
    assert text.count(r"servers \| differ") == 2 and "- failed: bad" in text
    assert [told(some) for some in (runs, runs[:2], runs[:1])] == [1, 3, 0]
    assert told([replace(runs[0], state=MISSING)]) == 1


def test_results_of_two_machines_are_not_passed_for_one() -> None:
    """Each value is shown, and a warning."""
    runs = [Ran(name=name, experiment="made-up", options=(), state=RAN) for name in ("a", "b")]
    other = {**HEAD, "commit": "fedcba", "per_second": 1}
    text = "\n".join(page(runs, {"a": {**HEAD, "per_second": 1}, "b": other}, {"made-up": made_up()}))
    assert "commit: 0123456789abcdef, fedcba" in text and "different commits" in text
    assert "different commits" not in "\n".join(page(runs[:1], {"a": other}, {"made-up": made_up()}))


# -- the runs --------------------------------------------------------------------------------------


def test_a_report_runs_every_experiment_but_the_endless() -> None:
    """Under names that differ, those of variants too; quick ones with options that they take."""
    runs = planned({**EXPERIMENTS, "soak": made_up("soak")}, quick=True)
    assert {run.experiment for run in runs} == set(EXPERIMENTS) - EXCLUDED
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        parser = argparse.ArgumentParser()
        experiment = EXPERIMENTS[run.experiment]
        experiment.add_options(parser)
        experiment.check(parser.parse_args(run.options))
    assert all(not run.options for run in planned(EXPERIMENTS, quick=False) if run.experiment not in VARIANTS)
    assert all(experiment.quick for name, experiment in EXPERIMENTS.items() if name not in EXCLUDED)


def test_a_full_report_has_the_curves_as_well() -> None:
    """And repeats what a quick one has, with options that the experiment takes."""
    quick, full = ({run.name for run in planned(EXPERIMENTS, quick=how)} for how in (True, False))
    assert full - quick == {"throughput-sizes", "throughput-clients"} and quick <= full
    parser = argparse.ArgumentParser()
    EXPERIMENTS["throughput"].add_options(parser)
    for run in planned(EXPERIMENTS, quick=False):
        if run.experiment == "throughput":
            options = parser.parse_args(run.options)
            EXPERIMENTS["throughput"].check(options)
            assert options.repeats > 1


def test_options_are_given_to_who_takes_them() -> None:
    """A picture, and a place for data."""
    assert takes(EXPERIMENTS["micro"], "--plot") and not takes(EXPERIMENTS["idle"], "--plot")
    assert takes(EXPERIMENTS["skew"], "--svg") and not takes(EXPERIMENTS["skew"], "--dir")


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("… starting\n  FAILED       state differs\n", "state differs"),
        ("usage: x\npython -m bench: error: --servers '0' is not allowed\n", "--servers '0' is not allowed"),
        ("error: no free ports\nmore\n", "no free ports"),
        ("Traceback\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("", "exit code 7, and not a word"),
    ],
)
def test_the_reason_is_what_the_run_said_last(log: str, why: str) -> None:
    """Of its failure, where it said so."""
    assert reason(log, 7) == why


@pytest.mark.parametrize(("raised", "exit_code"), [(NotPossible, 3), (BenchError, 1)])
def test_what_a_machine_lacks_is_told_from_what_failed(
    raised: type[Exception],
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the exit code."""

    async def run(_options: argparse.Namespace, _progress: Progress) -> tuple[Figures, list[str]]:
        raise raised("no tc here")

    monkeypatch.setitem(EXPERIMENTS, "made-up", made_up(run=run))
    assert main(["made-up"]) == exit_code
    assert "error: no tc here" in capsys.readouterr().err


def test_results_beside_the_runs_are_on_the_page_too(tmp_path: Path) -> None:
    """`--from` takes whatever results lie in a directory, also those that somebody made by hand."""
    result = {**HEAD, "command": [*HEAD["command"], "--json", "x", "--servers", "5"], "per_second": 1}
    (tmp_path / "mine.json").write_text(json.dumps(result), encoding="utf-8")
    bad = Ran(name="bad", experiment="made-up", options=("--servers", "9"), state=FAILED, why="it hung")
    report.keep([bad], tmp_path)
    runs = kept(tmp_path, {"made-up": made_up()})
    assert runs == [bad, Ran(name="mine", experiment="made-up", options=("--servers", "5"), state=RAN)]
    assert kept(tmp_path, {}) == []


@pytest.mark.system
def test_a_failing_run_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fails, one hangs, one cannot be, one works: all are named, and an old result passes for none."""
    scripts = {
        "bad": "print('  FAILED       servers differ'); raise SystemExit(1)",
        "lame": "print('error: no tc here'); raise SystemExit(3)",
        "hung": "import time; print('… waiting', flush=True); time.sleep(60)",
        "good": f"import json, sys; open(sys.argv[1], 'w').write(json.dumps({ {**HEAD, 'per_second': 5} }))",
    }

    def command(run: Ran, _experiment: Experiment, into: Path, _data: Path | None) -> list[str]:
        return [sys.executable, "-c", scripts[run.name], str(into / f"{run.name}.json")]

    monkeypatch.setattr(report, "command", command)
    monkeypatch.setattr(report, "QUICK_S", 2.0)
    (tmp_path / "bad.json").write_text(json.dumps(HEAD), encoding="utf-8")
    experiments = {name: made_up(name) for name in scripts}
    assert report.main(["--quick", "--into", str(tmp_path)], experiments) == 1
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for line in (
        "- failed: bad (servers differ)", "- skipped: lame (no tc here)",
        "- failed: hung (it took more than 2 s and was ended)", "rate         5 | a second",
    ):  # fmt: skip
        assert line in text
    assert not (tmp_path / "bad.json").exists()
    rebuilt = report.main(["--from", str(tmp_path)], experiments)
    assert (rebuilt, (tmp_path / "report.md").read_text(encoding="utf-8")) == (1, text)


@pytest.mark.system
def test_the_whole_program_makes_a_page(tmp_path: Path) -> None:
    """The cheapest experiment, as its own process, with its picture where one can be drawn."""
    done = subprocess.run(
        (sys.executable, "-m", "bench", "report", "--quick", "--into", str(tmp_path), "--only", "micro"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * QUICK_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1: micro" in done.stdout
    assert "| commands a call | 1 | 22 | 1000 |" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "told_of"),
    [
        (["--into", "{}/x"], "--quick --full --from"),
        (["--quick"], "--into"),
        (["--quick", "--into", "{}/a/b"], "a/b"),
        (["--quick", "--into", "{}/x", "--only", "nonsense"], "nonsense"),
        (["--from", "{}", "--into", "{}"], "--into"),
        (["--quick", "--full", "--into", "{}"], "--full"),
    ],
)
def test_wrong_options_are_named(
    arguments: list[str], told_of: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is run."""
    with pytest.raises(SystemExit) as ended:
        main(["report", *(one.format(tmp_path) for one in arguments)])
    assert ended.value.code == 2
    assert told_of in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the experiments."""
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert report.HELP in words and targets.HELP in words
