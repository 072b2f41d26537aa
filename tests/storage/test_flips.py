"""A sample of `python -m tests.storage.flips`: a flipped byte anywhere never becomes data."""

from __future__ import annotations

import pathlib

import pytest

from tests.storage import served
from tests.storage.flips import campaign, images


@pytest.mark.parametrize("number", range(4))
def test_a_flipped_byte_is_never_read_as_data(tmp_path: pathlib.Path, number: int) -> None:
    """As a stop, a kill and a power cut leave a directory, and with values apart: refused by name, skipped
    by name, or of no effect.
    """
    image = images(tmp_path)[number]
    found, wrong = campaign(image, 5, tmp_path)
    assert not wrong
    outcomes = {told for tally in found.values() for told in tally}
    assert {"right", "DamagedStorage", "snapshot skipped"} <= outcomes


async def test_a_server_serves_what_was_written_or_says_why_not(tmp_path: pathlib.Path) -> None:
    """A sample of `python -m tests.storage.served`: a whole server on top."""
    found, wrong = await served.campaign(tmp_path, 2)
    assert not wrong
    assert {"right", "DamagedStorage"} <= {told for tally in found.values() for told in tally}
