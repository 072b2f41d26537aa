"""Virtual time for the shell's tests."""

from __future__ import annotations

import pytest
import trio.testing


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing runs; the threshold leaves worker threads (syncs) their few microseconds."""
    return trio.testing.MockClock(autojump_threshold=0.01)
