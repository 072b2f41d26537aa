"""What all tests share: system tests one at a time, and the earlier checks' failures in the summary."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The cores are shared with the other worker: a slow example is not a failure, and a failing one is repeated
# by the seed that hypothesis prints.
settings.register_profile("craft", deadline=None, print_blob=True)
settings.load_profile("craft")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests with real processes on one worker: two clusters on two cores would time each other out."""
    for item in items:
        if item.get_closest_marker("system"):
            item.add_marker(pytest.mark.xdist_group("system"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say beside pytest's own result which of the checks before it failed (see tests/__main__.py)."""
    failed = os.environ.get("CRAFT_CHECKS_FAILED")
    if failed:
        terminalreporter.section("checks before the tests", red=True)
        terminalreporter.line(f"FAILED {failed} (output above)", red=True)
