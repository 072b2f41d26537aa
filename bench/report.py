"""`python -m bench report`: every experiment, one after the other, and one page of what came of it.

Each runs as a process of its own, so that none can disturb the next; one that fails, or that this machine
cannot run, is named on the page and does not stop the others.

In the directory: `NAME.json`, `NAME.log` and, where there is a curve, `NAME.svg` and `NAME.png` of every run;
`runs.json`, and `report.md`.

Exit codes: 0 all ran; 1 one failed; 2 the options are wrong; 3 none failed, but one was skipped since this
machine lacks what it takes; 128 + n signal n.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import trio

from bench import machine
from bench.ending import unless_signalled
from bench.experiment import Experiment, Progress, directory, save
from bench.page import FAILED, MISSING, RAN, SKIPPED, Ran, page
from bench.plots import drawable
from bench.targets import load, repeating

HELP = "Run all experiments, and write one page of what came of them."

EXCLUDED = {"soak"}
"""It takes as long as one likes."""

REPEATED = ("--repeats", "3")

VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "throughput": {"": (), "awaited": ("--mode", "awaited"), "256": ("--bytes", "256")},
}
"""Experiments of which every report has several runs, with their options; the others run once."""

CURVES: dict[str, dict[str, tuple[str, ...]]] = {
    "throughput": {
        "sizes": ("--bytes", "16,64,256,1024,4096,16384,65536"),
        "clients": ("--mode", "awaited", "--clients", "1,4,16,64,256,1024,4096"),
    },
}
"""And those that a full report has as well. Its variants and curves are all measured several times."""

QUICK_S, FULL_S = 180.0, 4 * 3600.0
"""A run that takes longer is stuck."""

EXITS = {0: RAN, 3: SKIPPED}
"""What a process' exit code says; all others: FAILED."""

LINE_CHARACTERS = 100
"""Of what a run says, on the progress line."""

END_WITHIN_S = 30.0
"""For a run that is told to end, to end its servers and remove their directories."""

KEPT = "runs.json"


def planned(experiments: Mapping[str, Experiment], *, quick: bool) -> list[Ran]:
    """All runs of a report, in the order of the experiments."""
    return [
        Ran(
            name="-".join(filter(None, (experiment.name, variant))),
            experiment=experiment.name,
            options=options,
        )
        for experiment in experiments.values()
        if experiment.name not in EXCLUDED
        for variant, options in variants(experiment, quick=quick).items()
    ]


def variants(experiment: Experiment, *, quick: bool) -> dict[str, tuple[str, ...]]:
    """An experiment's runs and their options; most have one, without a name of its own."""
    several = VARIANTS.get(experiment.name)
    if quick:
        return {name: (*own, *experiment.quick) for name, own in (several or {"": ()}).items()}
    if several is None:
        return {"": ()}
    return {name: (*own, *REPEATED) for name, own in {**several, **CURVES.get(experiment.name, {})}.items()}


def takes(experiment: Experiment, option: str) -> bool:
    """Has an experiment this option? Its help says so."""
    parser = argparse.ArgumentParser()
    experiment.add_options(parser)
    return f"\n  {option} " in parser.format_help()


def command(run: Ran, experiment: Experiment, into: Path, data: Path | None) -> list[str]:
    """The process of a run."""
    words = [sys.executable, "-m", "bench", run.experiment, *run.options]
    words += ["--json", str(into / f"{run.name}.json")]
    if data is not None and takes(experiment, "--dir"):
        words += ["--dir", str(data)]
    if drawable() and takes(experiment, "--plot"):
        words += ["--plot", str(into / run.name)]
    elif takes(experiment, "--svg"):
        words += ["--svg", str(into / f"{run.name}.svg")]
    return words


# -- running ---------------------------------------------------------------------------------------


async def carry_out(
    runs: Sequence[Ran], experiments: Mapping[str, Experiment], options: argparse.Namespace
) -> list[Ran]:
    """Every run, one after the other. What is known so far is kept after each of them."""
    progress = Progress()
    done: list[Ran] = []
    began = time.monotonic()
    for number, run in enumerate(runs, start=1):
        since = time.monotonic() - began
        progress.stage(f"{number} of {len(runs)}: {run.name} ({since / 60:.1f} minutes so far)")
        for suffix in ("json", "svg", "png"):  # of an earlier report, which would pass for this one's
            (options.into / f"{run.name}.{suffix}").unlink(missing_ok=True)
        words = command(run, experiments[run.experiment], options.into, options.dir)
        done.append(await one(run, words, options, progress, share=(number - 1) / len(runs)))
        keep(done, options.into)
    progress.clear()
    return done


async def one(
    run: Ran, words: Sequence[str], options: argparse.Namespace, progress: Progress, *, share: float
) -> Ran:
    """One process, to its end or its time's."""
    began = time.monotonic()
    file = options.into / f"{run.name}.log"
    limit = QUICK_S if options.quick else FULL_S
    with file.open("wb") as log:
        with trio.move_on_after(limit) as scope:
            code = await _process(words, log, run.name, progress, share)
    took = time.monotonic() - began
    if scope.cancelled_caught:
        state, why = FAILED, f"it took more than {limit:.0f} s and was ended"
    else:
        state = EXITS.get(code, FAILED)
        why = "" if state == RAN else reason(file.read_text(encoding="utf-8", errors="replace"), code)
    return replace(run, state=state, why=why, took_s=round(took, 1), plots=plots(run.name, options.into))


async def _process(words: Sequence[str], log: BinaryIO, name: str, progress: Progress, share: float) -> int:
    """Run it, showing what it says it does. Cancelled, it is asked to end, and cleans up."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            words,
            cwd=machine.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            deliver_cancel=_end,
        )
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        async for chunk in process.stdout:
            log.write(chunk)
            said = chunk.decode(errors="replace").strip().splitlines()
            if said:
                progress.bar(f"{name}: {said[-1].strip('… ')}"[:LINE_CHARACTERS], share)
        return await process.wait()


async def _end(process: trio.Process) -> None:
    process.terminate()
    await trio.sleep(END_WITHIN_S)
    process.kill()


def reason(log: str, code: int) -> str:
    """What a process said of its failure: its last line that says so, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("FAILED") or "error: " in line]
    last = (told or lines or [f"exit code {code}, and not a word"])[-1]
    return last.removeprefix("FAILED").partition("error: ")[2] or last.removeprefix("FAILED").strip()


def plots(name: str, into: Path) -> tuple[str, ...]:
    """A run's picture, where there is one: the SVG, which stays sharp."""
    return tuple(file.name for file in (into / f"{name}.svg", into / f"{name}.png") if file.is_file())[:1]


# -- what is kept ----------------------------------------------------------------------------------


def keep(done: Sequence[Ran], into: Path) -> None:
    """What became of the runs, for who builds the page again."""
    save({"runs": [asdict(run) for run in done]}, into / KEPT)


def kept(place: Path, experiments: Mapping[str, Experiment]) -> list[Ran]:
    """The runs of a directory: as `runs.json` has them, and whatever results lie there beside."""
    try:
        found = json.loads((place / KEPT).read_text(encoding="utf-8"))["runs"]
    except FileNotFoundError:
        found = []
    runs = [
        Ran(**{**one, "options": tuple(one["options"]), "plots": plots(one["name"], place)}) for one in found
    ]
    names = {run.name for run in runs}
    more = [
        Ran(
            name=name,
            experiment=result["experiment"],
            options=tuple(shlex.split(repeating(result["command"]))[4:]),
            state=FAILED if result["failures"] else RAN,
            plots=plots(name, place),
        )
        for name, result in load(place).items()
        if name not in names
    ]
    return [run for run in (*runs, *more) if run.experiment in experiments]


def write(runs: Sequence[Ran], experiments: Mapping[str, Experiment], place: Path) -> Path:
    """The page."""
    results = {name: one for name, one in load(place).items() if name in {run.name for run in runs}}
    file = place / "report.md"
    file.write_text("\n".join(page(runs, results, experiments)) + "\n", encoding="utf-8")
    return file


# -- the program -----------------------------------------------------------------------------------


def new_directory(text: str) -> Path:
    """The type of an option that is a directory, or will be one when it is needed."""
    path = Path(text)
    if not (path.is_dir() if path.exists() else path.absolute().parent.is_dir()):
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be made; allowed is a directory, or a new one in a directory that exists"
        )
    return path


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the program where they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=HELP)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--quick", action="store_true", help="short runs: ten minutes on two cores")
    length.add_argument("--full", action="store_true", help="runs as long as their defaults: hours")
    length.add_argument(
        "--from", dest="place", type=directory, metavar="DIR", help="run nothing: the page of what is there"
    )
    parser.add_argument("--into", type=new_directory, metavar="DIR", help="where everything goes")
    parser.add_argument("--only", metavar="NAME,…", help="of --quick and --full: these runs (default: all)")
    parser.add_argument(
        "--dir", type=directory, metavar="DIR", help="where the servers' data goes, as in every experiment"
    )
    options = parser.parse_args(arguments)
    if options.place is None and options.into is None:
        parser.error("--into is missing: the directory for results and page")
    if options.place is not None and (options.into, options.only, options.dir) != (None, None, None):
        parser.error("--from runs nothing, and takes no --into, --only or --dir")
    options.error = parser.error
    return options


def chosen(options: argparse.Namespace, experiments: Mapping[str, Experiment]) -> list[Ran]:
    """The runs that are wanted; ends the program where one is unknown."""
    runs = planned(experiments, quick=options.quick)
    if options.only is None:
        return runs
    names = [run.name for run in runs]
    wanted = options.only.split(",")
    for name in wanted:
        if name not in names:
            options.error(f"--only {name!r} is not allowed; allowed: some of {','.join(names)}")
    return [run for run in runs if run.name in wanted]


async def _report(options: argparse.Namespace, experiments: Mapping[str, Experiment]) -> int:
    runs = chosen(options, experiments)
    options.into.mkdir(exist_ok=True)  # not before all options are known to be right
    runs = await carry_out(runs, experiments, replaced(options))
    print(f"report       {write(runs, experiments, options.into)}")
    return told(runs)


def replaced(options: argparse.Namespace) -> argparse.Namespace:
    """With absolute paths: the runs' processes are elsewhere."""
    place = None if options.dir is None else options.dir.absolute()
    return argparse.Namespace(**{**vars(options), "into": options.into.absolute(), "dir": place})


def told(runs: Sequence[Ran]) -> int:
    """Name what did not run; the exit code."""
    for run in runs:
        if run.state != RAN:
            print(f"{run.state:<12} {run.name}: {run.why}")
    states = {run.state for run in runs}
    return 1 if states & {FAILED, MISSING} else 3 if SKIPPED in states else 0


def main(arguments: Sequence[str], experiments: Mapping[str, Experiment]) -> int:
    """The program."""
    options = parse(arguments)
    if options.place is None:
        return trio.run(unless_signalled, partial(_report, options, experiments))
    runs = kept(options.place, experiments)
    if not runs:
        options.error(f"--from {options.place}: there are no results")
    print(f"report       {write(runs, experiments, options.place)}")
    return told(runs)
