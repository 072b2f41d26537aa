"""Every error that craft raises on purpose; the name says who is to blame and what became of the data.

Floor 0. A wrong peer never crashes us (`RemoteError`); a wrong self always does (`FatalError`).
"""

from __future__ import annotations


class CraftError(Exception):
    """The root of all errors that craft raises on purpose."""


# -- what happened to a command -------------------------------------------------------------------


class Rejected(CraftError):
    """The command was refused before it was appended anywhere: it has no effect, ever. Try again."""


class Overloaded(Rejected):
    """A bounded queue is full (the message names it). Nothing was taken. Slow down, then try again."""


class NotReady(Rejected):
    """The server is starting or stopping and takes no commands. Nothing was taken."""


class Refused(Rejected):
    """A change of members that cannot be; the message names what is wrong. Nothing was changed."""


class CommandTooLarge(Rejected):
    """One call's commands exceed `entry_bytes_max`. Nothing was taken; send less in one call."""


class Unreachable(Rejected):
    """A client has no connection to the server, or lost it before a read was answered. Nothing was taken."""


class Unknown(CraftError):
    """The command may or may not take effect, now or later: the answer was lost, not the question."""


class SessionEnded(Unknown):
    """A client's session ended while a command was under way: an attempt whose answer was lost may have had
    its effect before. None will have one later.
    """


class ResultLost(CraftError):
    """The command took effect, once. Its answer was lost on the way, and its result is no longer kept."""


class SnapshotFailed(CraftError):
    """No snapshot was taken; the message says why. Nothing else is disturbed: the server goes on."""


# -- the tail of the merged log -------------------------------------------------------------------


class Compacted(CraftError):
    """What comes after a position of the merged log is no longer here.

    `position` is the one asked for. One may subscribe after `retained` or any later position; a state machine
    must first have a snapshot's state at `retained`, or at a later one.
    """

    def __init__(self, position: int, retained: int) -> None:
        super().__init__(position, retained)
        self.position = position
        self.retained = retained

    def __str__(self) -> str:
        return (
            f"the merged log after position {self.position} is compacted here; allowed: after {self.retained}"
            f" or later, from a snapshot's state at {self.retained} or later"
        )


class TooSlow(CraftError):
    """A subscriber did not keep up, and was dropped: nothing waits for it.

    It was given everything up to `position`; subscribe after that to go on.
    """

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position

    def __str__(self) -> str:
        return (
            f"the subscriber fell behind what tail.memory_bytes_max keeps, at position {self.position};"
            f" allowed: to subscribe again, after {self.position}"
        )


# -- moving leaders -------------------------------------------------------------------------------


class TransferFailed(CraftError):
    """A group was not handed over; the message says why, and who leads it. No command is touched by it."""


class NotLeader(TransferFailed):
    """Only a group's leader hands it over. `leader` is who that is, as far as the server knows."""

    def __init__(self, group: int, leader: int | None) -> None:
        super().__init__(group, leader)
        self.group = group
        self.leader = leader

    def __str__(self) -> str:
        if self.leader is None:
            return f"group {self.group} has no leader at the moment; try again"
        return f"group {self.group} is led by server {self.leader}; allowed: to ask that server"


# -- configuration and the command line -----------------------------------------------------------


class ConfigError(CraftError):
    """A configuration value is wrong; the message names the key, the value and what is allowed."""


class DamagedBackup(CraftError):
    """A backup's file is damaged, cut, missing, or of another history; the message names it.

    Nothing was restored from it, or added to it.
    """


# -- the other side is wrong ----------------------------------------------------------------------


class RemoteError(CraftError):
    """A peer or client broke the protocol. Its connection is dropped; nothing else is disturbed."""


class WireError(RemoteError):
    """Bytes that are not a valid frame, or exceed a limit."""


class DamagedEntry(RemoteError):
    """A log record whose checksum or fields do not hold."""


class DamagedSnapshot(RemoteError):
    """A snapshot whose checksums or contents do not hold, or that belongs to another cluster."""


class HandshakeRefused(RemoteError):
    """The two ends do not belong together; the message says what differs."""


# -- this server is wrong, and must stop ----------------------------------------------------------


class FatalError(CraftError):
    """This server must end; its message says why, and nothing unsafe was answered."""


class StorageFailed(FatalError):
    """A write or sync failed (or the disk is full). What it covered is unknown; never retried."""


class DamagedStorage(FatalError):
    """A data directory lost something that had been synced; the message names what is missing."""


class WrongDirectory(FatalError):
    """A data directory that belongs to another server or cluster, or is in use by another process."""


class ApplyFailed(FatalError):
    """The user's `apply_batch` raised. The position did not advance; the message names the command."""


class RestoreFailed(FatalError):
    """The user's `restore` raised. Nothing was applied to what it left."""


class ForeignState(FatalError):
    """A durable state machine's data belong to another cluster, or to another course of this one's log.

    Nothing was applied to them, nor will be: they have to be put aside.
    """


class SessionTaken(FatalError):
    """Another process runs under this server's id, with a higher session counter or another nonce."""


class InvariantViolation(FatalError):
    """The core found itself in a state that the protocol excludes: a bug, or damaged memory."""
