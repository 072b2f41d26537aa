"""A client without `async`: for threads, and through futures for asyncio.

    with craft.blocking.connect(["10.0.0.1:8001", "10.0.0.2:8001"]) as client:
        print(client.propose(b"5"))

One thread of its own runs Trio and `craft.connect`; callers wait for futures. Everything about sessions and
retries is there.

Invariants
- Any thread may call; calls of many threads share one connection and one session.
- Every future ends: with a result, with the call's own error, or with what is known when the client closes.
- Cancelling a future cancels its call. A cancelled or timed out `propose` is unknown.
- A forked child has no thread, so its calls are refused: it makes a client of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from craft import remote
from craft.errors import CraftError, NotReady, Overloaded, Unknown, Unreachable
from craft.limits import RemoteLimits
from craft.tailing import TailEntry

__all__ = ["Client", "connect"]

T = TypeVar("T")
Call = Callable[[remote.Client], Awaitable[T]]


def connect(addresses: Sequence[str] | str, *, timeout: float | None = None, **options: Any) -> Client:
    """Connect to a cluster; use it with `with`, or close it. Options and errors are those of `craft.connect`.

    Raises Unreachable after `timeout` seconds, or earlier, when every server was tried in vain.
    """
    client = Client(addresses, options)
    try:
        client._connected(timeout)
    except BaseException:
        client.close()
        raise
    return client


class Client:
    """A client of a cluster, for threads. Made by `connect`."""

    def __init__(self, addresses: Sequence[str] | str, options: dict[str, Any]) -> None:
        self._addresses = addresses
        self._options = options
        self._calls_max = (options.get("limits") or RemoteLimits()).calls_max
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: dict[Future[Any], CraftError] = {}  # unanswered, and what they are told at the end
        self._ended = False
        self._start: Future[None] = Future()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._remote: remote.Client | None = None
        self._nursery: trio.Nursery | None = None
        # A daemon: a program that forgets to close its client ends all the same.
        self._thread = threading.Thread(target=self._run, name="craft client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- calls that wait --------------------------------------------------------------------------

    def propose(self, command: bytes, *, timeout: float | None = None) -> Any:
        """Propose one command and wait for its result, exactly once (see `craft.Client.propose`).

        Raises Unknown where no answer came in `timeout` seconds: it may or may not take effect.
        """
        return self._wait(self.submit(command), timeout, Unknown)

    def propose_many(self, commands: Sequence[bytes], *, timeout: float | None = None) -> Sequence[Any]:
        """Propose commands that take effect together; one result a command."""
        return self._wait(self.submit_many(commands), timeout, Unknown)

    def read(self, query: bytes, *, at_least: int = 0, timeout: float | None = None) -> Any:
        """What the state machine's `query` answers, linearizable.

        Raises Unreachable where no answer came in `timeout` seconds.
        """
        return self._wait(self.submit_read(query, at_least=at_least), timeout, Unreachable)

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """The `status()` of the server that the client is connected to."""
        return self._wait(self._submit(lambda one: one.status(), _unread()), timeout, Unreachable)

    def subscribe(self, after: int | None = None) -> Iterator[tuple[TailEntry, ...]]:
        """Follow the merged log, batch by batch, for ever; waits for each (see `craft.Client.subscribe`).

        What is not taken waits nowhere: a batch is asked for when the one before was taken.
        """
        if after is not None and after < 0:
            raise ValueError(f"after is {after!r}; allowed is a position, 0 or greater")
        if after is None:
            after = self.status()["applied_position"]
        return self._follow(after)

    def _follow(self, after: int) -> Iterator[tuple[TailEntry, ...]]:
        while True:
            batch = self._wait(self._submit(partial(_poll, after=after), _unread()), None, Unreachable)
            if batch:
                yield batch
                after = batch[-1].position

    @property
    def position(self) -> int:
        """The greatest position of the merged log that this client was answered at."""
        return 0 if self._remote is None else self._remote.position

    # -- calls that are waited for elsewhere ------------------------------------------------------

    def submit(self, command: bytes) -> Future[Any]:
        """Propose one command; its result comes in the future. With asyncio: `asyncio.wrap_future(…)`.

        Raises Overloaded beyond `limits.calls_max` calls that are not answered.
        """
        return self._submit(lambda one: one.propose(command), _unknown())

    def submit_many(self, commands: Sequence[bytes]) -> Future[Sequence[Any]]:
        """Propose commands that take effect together."""
        listed = list(commands)
        return self._submit(lambda one: one.propose_many(listed), _unknown())

    def submit_read(self, query: bytes, *, at_least: int = 0) -> Future[Any]:
        """Read."""
        return self._submit(lambda one: one.read(query, at_least=at_least), _unread())

    def _submit(self, call: Call[T], at_the_end: CraftError) -> Future[T]:
        self._check_process()
        future: Future[T] = Future()
        with self._lock:
            if self._ended or self._token is None:
                raise NotReady("the client is closed")
            if len(self._open) >= self._calls_max:
                raise Overloaded(f"unanswered calls would exceed calls_max = {self._calls_max}")
            self._open[future] = at_the_end  # first: the call may end before we are back
            try:
                self._token.run_sync_soon(self._spawn, future, call)
            except trio.RunFinishedError:
                del self._open[future]
                raise NotReady("the client is closed") from None
        return future

    def _wait(self, future: Future[T], timeout: float | None, late: type[CraftError]) -> T:
        if threading.current_thread() is self._thread:
            future.cancel()  # before it was begun, for this is the thread that begins it
            raise RuntimeError("a future's callback may not wait for another call: it would wait for itself")
        return _result(future, timeout, late)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise NotReady(
                "this client belongs to the process that made it; allowed: one made after the fork"
            )

    # -- closing ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the session and the connection; end the thread. Calls under way are told what is known."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._ended = True
            token = self._token
        if token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    def _connected(self, timeout: float | None) -> None:
        _result(self._start, timeout, Unreachable)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException = NotReady("the client is closed")
        try:
            trio.run(self._main)
        except BaseException as ended:  # noqa: BLE001  # whoever connects is told
            error = ended
        with self._lock:
            self._ended = True
            left, self._open = self._open, {}
        for future, at_the_end in left.items():
            _fail(future, at_the_end)
        _fail(self._start, error)

    async def _main(self) -> None:
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
            if self._ended:
                return
        with self._scope:
            # Closing cancels the inner scope only: then the session is closed in good order.
            async with remote.connect(self._addresses, **self._options) as self._remote:
                with trio.CancelScope() as self._scope:
                    await self._serve()

    async def _serve(self) -> None:
        async with trio.open_nursery() as self._nursery:
            if self._start.set_running_or_notify_cancel():
                self._start.set_result(None)
            await trio.sleep_forever()

    def _spawn(self, future: Future[T], call: Call[T]) -> None:
        """In Trio's thread."""
        assert self._nursery is not None
        if future.cancelled():
            self._open.pop(future, None)
        elif not self._scope.cancel_called:
            self._nursery.start_soon(self._answer, future, call)

    async def _answer(self, future: Future[T], call: Call[T]) -> None:
        assert self._remote is not None
        try:
            with trio.CancelScope() as scope:
                future.add_done_callback(lambda done: self._abandon(done, scope))
                try:
                    result = await call(self._remote)
                except Exception as error:  # noqa: BLE001  # it is the caller's, and raised where it waits
                    _fail(future, error)
                else:
                    if future.set_running_or_notify_cancel():
                        future.set_result(result)
        finally:
            if future.done():  # else it is told at the end
                self._open.pop(future, None)

    def _abandon(self, future: Future[Any], scope: trio.CancelScope) -> None:
        """In whatever thread the future was settled."""
        if future.cancelled() and self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(scope.cancel)


async def _poll(client: remote.Client, after: int) -> tuple[TailEntry, ...]:
    return await client.poll(after)


def _unknown() -> CraftError:
    return Unknown("the client was closed before the answer: the command may or may not take effect")


def _unread() -> CraftError:
    return Unreachable("the client was closed before the answer")


def _fail(future: Future[Any], error: BaseException) -> None:
    """Unless somebody settled it, or cancelled it."""
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(error)


def _result(future: Future[T], timeout: float | None, late: type[CraftError]) -> T:
    """Wait. Whoever stops waiting cancels the call."""
    try:
        return future.result(timeout)
    except TimeoutError:
        if future.cancel():
            raise late(f"no answer within {timeout:g} s") from None
        return future.result()
    except BaseException:
        future.cancel()
        raise
