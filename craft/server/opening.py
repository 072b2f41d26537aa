"""`open_server`: put a server together from its configuration, run it in the caller's scope."""

from __future__ import annotations

import logging
import random
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from craft import logs
from craft.clock import Clock
from craft.clock.chrony import ChronyClock
from craft.clock.ntp import NtpClock
from craft.clock.system import SystemClock
from craft.clock.watch import WatchedClock
from craft.config import Config
from craft.errors import ConfigError, FatalError
from craft.server.core import M, Server
from craft.server.doors import Doors
from craft.server.joining import ask_for_roll, renewed
from craft.server.listener import Listener
from craft.server.roll import Roll, founding, load, save, settled
from craft.server.starting import start
from craft.server.working import DiskThread, rested
from craft.storage import Identity, Storage, new_disk_id
from craft.storage.memory import MemoryStorage
from craft.storage.rocks import RocksStorage
from craft.transport import Transport
from craft.transport.tcp import TcpTransport, tls_contexts

log = logging.getLogger("craft.server")


@asynccontextmanager
async def open_server(
    config: Config,
    state_machine: M,
    *,
    clock: Clock | None = None,
    storage: Storage | None = None,
    transport: Transport | None = None,
) -> AsyncIterator[Server[M]]:
    """Run a server while the block runs: `async with craft.open_server(config, state_machine) as server:`.

    Everything runs in tasks below this block and nothing is left behind. Leaving the block normally hands the
    led groups over first; leaving it by an exception or cancellation does not wait. If the server fails (a
    disk, a port, the state machine), the block is cancelled and the error raised here. `clock`, `storage` and
    `transport` replace what the configuration names (they are closed here).

    A state machine that is a `Snapshots` is restored first, in a thread, where there is a snapshot; one that
    is `Durable` only where its own data end before it.

    Raises TypeError, ConfigError (a port in use), WrongDirectory, DamagedStorage at start;
    StorageFailed, ApplyFailed, RestoreFailed, ForeignState, SessionTaken later.
    """
    own = trio.CapacityLimiter(1)  # a program may keep all of Trio's shared threads busy
    hung: Sequence[DiskThread] | None = None
    try:
        _check_types(config, state_machine)
        roll = await _find_roll(config)
        config = settled(config, roll)
        if storage is None:
            storage = await trio.to_thread.run_sync(_open_storage, config, limiter=own)
        started = await trio.to_thread.run_sync(start, storage, state_machine, limiter=own)
        save(config.data_dir, roll)
        doors = Doors(storage) if transport is None else None
        transport = transport or tcp_transport(config, storage, doors)
        if config.client_address is not None:
            transport.advertise(str(config.client_address))
        server = Server(
            config,
            state_machine,
            clock=clock or configured_clock(config),
            storage=storage,
            started=started,
            transport=transport,
            roll=roll,
            doors=doors,
        )
        listener = None if config.client_listen_address is None else Listener(server, config)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                if listener is not None:
                    await nursery.start(listener.run)
                yield server
                await server.close()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            _raise_what_matters(group)
            raise
        finally:
            threads = (*server.snapshots.threads, server.tails.thread)
            if server.disk_hangs or not await rested(threads):
                hung = threads
    finally:
        if storage is not None:
            await _close(storage, own, hung)


async def _find_roll(config: Config) -> Roll:
    """That of the data directory, or of a server that is asked; or it is one of the first."""
    roll = load(config)
    if roll is None:
        return await ask_for_roll(config) if config.join and not config.servers else founding(config)
    return await renewed(config, roll) if config.join else roll


async def _close(storage: Storage, own: trio.CapacityLimiter, hung: Sequence[DiskThread] | None) -> None:
    if hung is not None:  # it is closed when the disk comes back, if ever; that must not keep the process
        logs.event(log, logging.ERROR, "storage not closed: its disk hangs")
        threading.Thread(target=_close_later, args=(storage, hung), name="craft close", daemon=True).start()
        return
    with trio.CancelScope(shield=True):  # a database takes its time, which others on this loop need not
        await trio.to_thread.run_sync(storage.close, limiter=own)


def _close_later(storage: Storage, hung: Sequence[DiskThread]) -> None:
    for thread in hung:
        thread.wait()
    storage.close()


def _check_types(config: Any, state_machine: Any) -> None:
    """What would come out at the first command otherwise, when that is committed."""
    if not isinstance(config, Config):
        raise TypeError(f"config is {config!r:.80}; allowed: a Config, as Config.load makes it from a file")
    if isinstance(state_machine, type) or not callable(getattr(state_machine, "apply_batch", None)):
        raise TypeError(
            f"state_machine is {state_machine!r:.80}; allowed: an object with a method apply_batch"
        )


def _raise_what_matters(group: BaseExceptionGroup[BaseException]) -> None:
    """What ended the server, if that is in the group; else the block's own error, if it is alone in it."""
    leaves = list(_leaves(group))
    fatal = next((leaf for leaf in leaves if isinstance(leaf, FatalError | ConfigError)), None)
    if fatal is not None:
        # Its own cause shows where a state machine or disk failed. What callers raised is in the group.
        raise fatal from fatal.__cause__ or group
    if len(leaves) == 1:
        raise leaves[0] from leaves[0].__cause__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _open_storage(config: Config) -> Storage:
    if config.data_dir is None:
        return MemoryStorage(Identity(config.cluster, config.server_id, new_disk_id(), config.group_count))
    return RocksStorage.open(
        config.data_dir, cluster_id=config.cluster, server_id=config.server_id, groups=config.group_count
    )


def configured_clock(config: Config) -> WatchedClock:
    """The clock that a configuration describes, watched."""
    settings = config.clock
    if settings.source == "ntp":
        interval_s = settings.ntp_poll_interval_ms / 1000
        return WatchedClock(NtpClock(settings.ntp_addresses, poll_interval_s=interval_s))
    return WatchedClock(ChronyClock() if settings.source == "chrony" else SystemClock())


def tcp_transport(config: Config, storage: Storage, doors: Doors | None = None) -> TcpTransport:
    """The TCP transport that a configuration describes."""
    server_tls = client_tls = None
    if config.tls is not None:
        server_tls, client_tls = tls_contexts(config.tls.cert_file, config.tls.key_file, config.tls.ca_file)
    return TcpTransport(
        server_id=config.server_id,
        cluster_id=config.cluster,
        disk_id=storage.identity.disk_id,
        groups=config.group_count,
        listen=config.listen_address,
        peers=config.advertised,
        limits=config.transport,
        known_disk=(doors or Doors(storage)).check,
        rng=random.Random(secrets.randbits(64)),
        server_tls=server_tls,
        client_tls=client_tls,
        insecure_ok=config.insecure_listen,
    )
