"""A place for disks whose syncs cost nothing, where the system has one."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from tests.storage.disks import FAST_FOLDER


@pytest.fixture
def tmp_path(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """These tests restart disks hundreds of times, and none of them cuts the real power."""
    if FAST_FOLDER is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER, prefix="craft-") as folder:
        yield pathlib.Path(folder)
