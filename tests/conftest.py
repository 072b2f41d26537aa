"""What all tests share: a limit of time, system tests one at a time, earlier checks in the summary."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The cores are shared with the other worker: a slow example is not a failure, and a failing one is repeated
# by the blob that hypothesis prints.
settings.register_profile("craft", deadline=None, print_blob=True)
settings.load_profile("craft")

# A shell starts what it runs in the background with SIGINT ignored, and whatever that starts inherits it: the
# commands under test would not end by Ctrl-C, nor a test that hangs by its alarm.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TEST_SECONDS_MAX = 120
"""One test, or its fixtures. Far above any: what takes longer hangs, and fails where it hangs."""


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    """Fail what hangs, so that the other tests still run and the summary names it.

    By a keyboard interrupt, because Trio ends its run properly on one; any other exception out of a signal's
    handler would leave Trio unable to run the next test.
    """
    expired = False

    def expire(*_: object) -> None:
        nonlocal expired
        expired = True
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(TEST_SECONDS_MAX)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not expired:
            raise
        raise pytest.fail.Exception(f"still running after {TEST_SECONDS_MAX} s") from interrupt
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Limit a test's time (and its asynchronous fixtures', which run with it)."""
    with limited_time():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Limit its fixtures' time."""
    with limited_time():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with real processes first: then one worker has them all, and no other waits for the lock."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run tests with real processes one at a time: two clusters on two cores would time each other out.

    The lock is this very file, which all workers share; a worker that waits leaves its core to the cluster.
    (xdist's groups would do it too, but its 3.8 does not see them under pytest 9.)
    """
    if item.get_closest_marker("system") is None:
        return (yield)
    with Path(__file__).open("rb") as shared:
        fcntl.flock(shared, fcntl.LOCK_EX)
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say beside pytest's own result which of the checks before it failed (see tests/__main__.py)."""
    failed = os.environ.get("CRAFT_CHECKS_FAILED")
    if failed:
        terminalreporter.section("checks before the tests", red=True)
        terminalreporter.line(f"FAILED {failed} (output above)", red=True)
