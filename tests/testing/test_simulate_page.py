"""The reference of `craft simulate` names everything that there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from craft.cli import main
from craft.testing.faults import FAULTS
from craft.testing.parallel import Summary
from craft.testing.plan import Fault, Plan, RemoteClients
from craft.testing.report import as_json
from craft.testing.trace import Event
from craft.testing.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "simulate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "names",
    [
        list(FAULTS),
        list(WORKLOADS),
        [one.name for one in fields(Plan)],
        [one.name for one in fields(RemoteClients)],
        [one.name for one in fields(Fault)],
        list(as_json(Summary(), str, seconds=1.0, jobs=1)),
    ],
    ids=["faults", "workloads", "plan", "remote", "fault", "json"],
)
def test_every_name_is_explained(names: list[str]) -> None:
    """A kind of fault, a key of a script or of the figures that nobody can look up is of little use."""
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_no_fault_is_explained_that_there_is_not() -> None:
    """A kind that was taken away leaves the page too."""
    _, _, section = PAGE.partition("## Kinds of fault")
    section, _, _ = section.partition("## Moments")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| [^|]+ \|$", section, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(FAULTS)


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """And none that is not understood."""
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    options = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", capsys.readouterr().out))
    assert options - {"--help", "--log-level"} == set(re.findall(r"--[a-z]+(?:-[a-z]+)*", PAGE))


def test_the_columns_stand_where_the_page_says() -> None:
    """A script may cut them."""
    line = Event(1_234_567, 3, "violation", 12, 5, "the rest").line()
    assert (line[:15].strip(), line[16:19].strip(), line[20:29]) == ("1.234567", "3", "violation")
    assert (line[30:33].strip(), line[34:37].strip(), line[38:]) == ("12", "5", "the rest")
