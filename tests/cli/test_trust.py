"""`craft trust`: the operator must say what is known, and of whom."""

from __future__ import annotations

import pytest

from craft.cli import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["127.0.0.1:1", "--server-id", "2"], "this can lose answered writes; allowed: with --nothing"),
        (["127.0.0.1:1", "--nothing-is-missing"], "required: --server-id"),
    ],
)
def test_nothing_happens_by_accident(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither without the flag that says it, nor without the server's id."""
    with pytest.raises(SystemExit):
        main(["trust", *arguments])
    assert said in capsys.readouterr().err


def test_nobody_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, which names the address."""
    assert main(["trust", "127.0.0.1:1", "--server-id", "2", "--nothing-is-missing"]) != 0
    assert "127.0.0.1:1" in capsys.readouterr().err
