"""The same client without `async`: from threads, and from asyncio."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import trio

import craft
from craft import blocking
from tests.remote.servers import Servers, Wire, serving, wire

# Everything here waits for threads, as plain programs do: the servers have a thread of their own.


class Cluster:
    """One server, and a wire to it, in a thread that runs Trio."""

    def __init__(self) -> None:
        self.up: Future[None] = Future()
        self.servers: Servers
        self.wire: Wire
        self._token: trio.lowlevel.TrioToken
        self._down: trio.Event

    async def main(self) -> None:
        async with serving() as self.servers, wire(self.servers.addresses[1]) as self.wire:
            self._token, self._down = trio.lowlevel.current_trio_token(), trio.Event()
            self.up.set_result(None)
            await self._down.wait()

    def call(self, function: Callable[[], object]) -> None:
        trio.from_thread.run_sync(function, trio_token=self._token)

    def wait_swallowed(self) -> None:
        trio.from_thread.run(self.wire.swallowed.wait, trio_token=self._token)

    def end(self) -> None:
        self.call(self._down.set)

    @property
    def address(self) -> str:
        return self.wire.address

    @property
    def commands(self) -> list[bytes]:
        commands: list[bytes] = self.servers.machine(1).commands
        return commands


@contextmanager
def running() -> Iterator[Cluster]:
    cluster = Cluster()
    thread = threading.Thread(target=trio.run, args=(cluster.main,))
    thread.start()
    cluster.up.result()
    try:
        yield cluster
    finally:
        cluster.end()
        thread.join()


def test_one_can_propose_read_and_look() -> None:
    """The story of the module's docstring."""
    with running() as cluster:
        with craft.blocking.connect([cluster.address], cluster="test") as client:
            assert client.propose(b"a") == 1
            assert list(client.propose_many([b"b", b"c"], timeout=60)) == [2, 3]
            assert client.read(b"q", timeout=60) == (3, b"q")
            assert client.read(b"q", at_least=client.position) == (3, b"q")
            assert client.status()["ready"]
        assert len(cluster.servers.servers[1].engine.state.clients) == 0


def test_many_threads_share_one_client() -> None:
    """One connection, one session, and each call its own result."""
    with running() as cluster:
        with blocking.connect(cluster.address) as client, ThreadPoolExecutor(16) as threads:
            places = list(threads.map(lambda n: client.propose(b"%d" % n), range(200)))
            assert [cluster.commands[place - 1] for place in places] == [b"%d" % n for n in range(200)]
            assert len(cluster.servers.servers[1].engine.state.clients) == 1
        assert cluster.wire.connections == 1


def test_errors_keep_their_class() -> None:
    """As they would be raised in a Trio program."""
    with running() as cluster, blocking.connect(cluster.address) as client:
        with pytest.raises(craft.RemoteError, match="no such thing"):
            client.read(b"wrong")
        with pytest.raises(craft.CommandTooLarge):
            client.propose(bytes(1024 * 1024 - 20))
        with pytest.raises(TypeError, match="must be bytes"):
            client.propose("text")  # type: ignore[arg-type]
        with pytest.raises(craft.ConfigError, match="addresses"):
            blocking.connect([])
        assert client.propose(b"a") == 1


def test_nobody_there_is_unreachable() -> None:
    """The thread that looked has ended."""
    before = threading.active_count()
    with pytest.raises(craft.Unreachable, match="cannot be reached"):
        blocking.connect("127.0.0.1:1")
    assert threading.active_count() == before


def test_waiting_is_bounded_where_one_says_so() -> None:
    """A command that was sent is unknown then, a read is not served; the client goes on."""
    with running() as cluster, blocking.connect(cluster.address) as client:
        assert client.propose(b"a") == 1
        cluster.wire.swallow = True
        with pytest.raises(craft.Unknown, match=r"no answer within 0.05 s"):
            client.propose(b"b", timeout=0.05)
        with pytest.raises(craft.Unreachable, match=r"no answer within 0.05 s"):
            client.read(b"q", timeout=0.05)
        cluster.wire.swallow = False
        cluster.call(cluster.wire.cut)
        client.propose(b"c")
        assert cluster.commands in ([b"a", b"b", b"c"], [b"a", b"c"])


def test_connecting_is_bounded_too() -> None:
    """By whoever has no time."""
    with running() as cluster:
        cluster.wire.swallow = True
        with pytest.raises(craft.Unreachable, match="no answer within 0.05 s"):
            blocking.connect(cluster.address, timeout=0.05)


def test_futures_come_back_with_results_and_errors() -> None:
    """Many calls of one thread are under way at once."""
    with running() as cluster, blocking.connect(cluster.address) as client:
        futures = [client.submit(b"%d" % n) for n in range(50)]
        assert sorted(future.result() for future in futures) == list(range(1, 51))
        assert list(client.submit_many([b"x", b"y"]).result()) == [51, 52]
        assert client.submit_read(b"q").result() == (52, b"q")
        assert isinstance(client.submit_read(b"wrong").exception(), craft.RemoteError)
        assert not client._open


def test_a_cancelled_future_cancels_its_call() -> None:
    """Nothing waits for it any more."""
    with running() as cluster, blocking.connect(cluster.address) as client:
        client.propose(b"a")
        cluster.wire.swallow = True
        future = client.submit(b"b")
        cluster.wait_swallowed()
        assert future.cancel()
        cluster.wire.swallow = False
        cluster.call(cluster.wire.cut)
        assert client.propose(b"c") == 3
        assert not client._open


def test_what_is_under_way_when_the_client_closes_is_told() -> None:
    """A command is unknown, a read is not served; later calls are refused."""
    with running() as cluster:
        client = blocking.connect(cluster.address, limits=craft.RemoteLimits(close_timeout_ms=10))
        client.propose(b"a")
        cluster.wire.swallow = True
        command, read = client.submit(b"b"), client.submit_read(b"q")
        cluster.wait_swallowed()
        client.close()
        assert isinstance(command.exception(), craft.Unknown)
        assert isinstance(read.exception(), craft.Unreachable)
        with pytest.raises(craft.NotReady, match="the client is closed"):
            client.propose(b"c")
        client.close()


def test_so_many_calls_and_no_more() -> None:
    """Overloaded: nothing was taken."""
    limits = craft.RemoteLimits(calls_max=2, close_timeout_ms=10)
    with running() as cluster, blocking.connect(cluster.address, limits=limits) as client:
        client.propose(b"a")
        cluster.wire.swallow = True
        client.submit(b"b")
        client.submit(b"c")
        with pytest.raises(craft.Overloaded, match="calls_max = 2"):
            client.submit(b"d")


class Sluggish:
    """Lets a thread that hands a call over go on only when the call has ended."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    def run_sync_soon(self, function: Callable[..., object], *args: Any) -> None:
        self._token.run_sync_soon(function, *args)
        for future in args[:1]:
            future.exception(timeout=60)
        trio.from_thread.run_sync(lambda: None, trio_token=self._token)  # what follows in that thread is done


def test_a_call_that_ends_before_its_thread_goes_on_leaves_its_place() -> None:
    """The interpreter may switch threads there: else places would be lost, one by one, until none is left."""
    limits = craft.RemoteLimits(calls_max=2)
    with running() as cluster, blocking.connect(cluster.address, limits=limits) as client:
        token = client._token
        assert token is not None
        client._token = Sluggish(token)  # type: ignore[assignment]
        for _ in range(3):
            with pytest.raises(TypeError, match="must be bytes"):
                client.submit("text").result()  # type: ignore[arg-type]
        client._token = token


def test_a_callback_may_not_wait_for_itself() -> None:
    """It runs in the thread that serves all calls. What it was refused is not done either."""
    told: Future[BaseException] = Future()
    with running() as cluster, blocking.connect(cluster.address) as client:

        def callback(_: Future[object]) -> None:
            try:
                client.propose(b"b", timeout=1)
            except RuntimeError as error:
                told.set_result(error)

        cluster.wire.swallow = True
        future = client.submit(b"a")
        future.add_done_callback(callback)
        cluster.wire.swallow = False
        cluster.call(cluster.wire.cut)
        assert "wait for itself" in str(told.result(timeout=60))
        client.propose(b"c")
        assert cluster.commands == [b"a", b"c"]


def test_a_forked_child_needs_a_client_of_its_own() -> None:
    """The thread stayed with the parent: the child is told, and harms nothing."""
    with running() as cluster, blocking.connect(cluster.address) as client:
        client.propose(b"a")
        child = _fork()
        if child == 0:
            code = 1
            try:
                client.propose(b"b")
            except craft.NotReady as error:
                client.close()
                code = 0 if "made after the fork" in str(error) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.propose(b"c") == 2


def _fork() -> int:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: that is what this is about
        return os.fork()


def test_an_asyncio_program_uses_it_through_futures() -> None:
    """Many calls at once, errors where they are awaited, and a task that is cancelled."""

    async def program(cluster: Cluster) -> None:
        client = await asyncio.to_thread(blocking.connect, cluster.address)
        places = await asyncio.gather(*(asyncio.wrap_future(client.submit(b"%d" % n)) for n in range(100)))
        assert sorted(places) == list(range(1, 101))
        with pytest.raises(craft.RemoteError, match="no such thing"):
            await asyncio.wrap_future(client.submit_read(b"wrong"))
        cluster.wire.swallow = True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(client.submit(b"late")), 0.05)
        cluster.wire.swallow = False
        cluster.call(cluster.wire.cut)
        assert (await asyncio.wrap_future(client.submit_read(b"q")))[0] in {100, 101}
        await asyncio.to_thread(client.close)

    with running() as cluster:
        asyncio.run(program(cluster))
