"""craft: replicated state machines with many leaders and one merged log.

Every server runs several Raft groups and leads one of them; each leader stamps its entries with its clock;
each server merges the committed entries of all groups by timestamp into one log and feeds it to the state
machine. So every server takes writes, and all apply the same commands in the same order, linearizably. Clocks
decide only how long one waits.

    class Counter:
        def __init__(self) -> None:
            self.value = 0

        def apply_batch(self, batch: craft.Batch) -> list[int]:
            return [self.add(int(command)) for command in batch]
        ...

    async with craft.open_server(craft.Config.load("server.toml"), Counter()) as server:
        print(await server.propose(b"5"))

These are the public names; everything else may change between versions.
"""

from craft import blocking
from craft.clock import Clock, RunningClock
from craft.clock.chrony import ChronyClock
from craft.clock.manual import ManualClock
from craft.clock.ntp import NtpClock
from craft.clock.system import SystemClock
from craft.clock.watch import WatchedClock
from craft.config import ClockConfig, Config, TlsConfig
from craft.errors import (
    ApplyFailed,
    CommandTooLarge,
    Compacted,
    ConfigError,
    CraftError,
    DamagedStorage,
    FatalError,
    ForeignState,
    HandshakeRefused,
    NotLeader,
    NotReady,
    Overloaded,
    Refused,
    Rejected,
    RemoteError,
    RestoreFailed,
    ResultLost,
    SessionEnded,
    SessionTaken,
    SnapshotFailed,
    StorageFailed,
    TooSlow,
    TransferFailed,
    Unknown,
    Unreachable,
    WrongDirectory,
)
from craft.limits import ClientLimits, EngineLimits, RemoteLimits, TailLimits, TransportLimits
from craft.membership import Add, Move, Remove
from craft.remote import Client, connect
from craft.server import Committed, Server, Stale, open_server
from craft.state_machine import Batch, Durable, LastApplied, Queryable, Snapshots, StateMachine
from craft.tailing import TailEntry
from craft.transport.memory import MemoryNetwork
from craft.version import VERSION

__version__ = VERSION

__all__ = [
    "Add",
    "ApplyFailed",
    "Batch",
    "ChronyClock",
    "Client",
    "ClientLimits",
    "Clock",
    "ClockConfig",
    "CommandTooLarge",
    "Committed",
    "Compacted",
    "Config",
    "ConfigError",
    "CraftError",
    "DamagedStorage",
    "Durable",
    "EngineLimits",
    "FatalError",
    "ForeignState",
    "HandshakeRefused",
    "LastApplied",
    "ManualClock",
    "MemoryNetwork",
    "Move",
    "NotLeader",
    "NotReady",
    "NtpClock",
    "Overloaded",
    "Queryable",
    "Refused",
    "Rejected",
    "RemoteError",
    "RemoteLimits",
    "Remove",
    "RestoreFailed",
    "ResultLost",
    "RunningClock",
    "Server",
    "SessionEnded",
    "SessionTaken",
    "SnapshotFailed",
    "Snapshots",
    "Stale",
    "StateMachine",
    "StorageFailed",
    "SystemClock",
    "TailEntry",
    "TailLimits",
    "TlsConfig",
    "TooSlow",
    "TransferFailed",
    "TransportLimits",
    "Unknown",
    "Unreachable",
    "WatchedClock",
    "WrongDirectory",
    "__version__",
    "blocking",
    "connect",
    "open_server",
]
