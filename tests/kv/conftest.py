"""A real Redis for the tests that compare with one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.kv.redis import Connection, running


@pytest.fixture(scope="session")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real server; without one, its tests are skipped by name."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with running(program, tmp_path_factory.mktemp("redis")) as number:
        yield number


@pytest.fixture
def redis(port: int) -> Iterator[Connection]:
    """A connection to an empty server."""
    connection = Connection(port)
    connection.ask(b"FLUSHALL")
    yield connection
    connection.close()


@pytest.fixture
def other(port: int) -> Iterator[Connection]:
    """Another client of the same server."""
    connection = Connection(port)
    yield connection
    connection.close()
