"""Moving leaders by an operator's wish, and waiting until it has come about.

Invariant: a call that ends in time says what is so; the wish goes on in the engine either way, and is bounded
there.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from craft.engine import Engine
from craft.errors import TransferFailed
from craft.limits import EngineLimits
from craft.types import GroupId, Instant, ServerId

POLL_S = 0.005
"""The engine has no event for a new leader; a transfer takes about this long."""


class NotYet(TransferFailed):
    """It has not come about in time, and the engine goes on with it."""


class Leaders:
    """What an operator may ask of one server: `server.leaders`."""

    def __init__(
        self,
        engine: Engine,
        now: Callable[[], Instant],
        wake: Callable[[], None],
        check_open: Callable[[], None],
        drain_within_ms: int,
    ) -> None:
        self._engine = engine
        self._now = now
        self._wake = wake
        self._check_open = check_open
        self._drain_within_ms = drain_within_ms

    async def transfer(self, group: GroupId, *, to: ServerId, hold_ms: int | None = None) -> None:
        """Have a group that is led here led by server `to`, and wait until it is.

        It stays there for `hold_ms` (`engine.leader_hold_ms`), or until it loses it; then placement decides
        again. Where `to` leads it already, it stays. Raises NotLeader, which names who must be asked;
        TransferFailed, which says why the group stays where it is; NotReady; ValueError.
        """
        self._check_open()
        engine = self._engine
        engine.transfer(group, to, _checked(hold_ms, engine.state.limits), self._now())
        self._wake()
        within_ms = 2 * engine.state.limits.election_timeout_ms_max
        with trio.move_on_after(within_ms / 1000):
            while self._leader(group) != to:  # noqa: ASYNC110  # the engine has no event for it
                await trio.sleep(POLL_S)
            await trio.lowlevel.checkpoint()
            return
        raise NotYet(
            f"server {to} did not take group {group} over within {within_ms} ms, and may yet; it is led by"
            f" {_shown(self._leader(group))}"
        )

    async def drain(self, *, hold_ms: int | None = None) -> None:
        """Give every group that is led here to others, and lead none for `hold_ms` while others can.

        Raises TransferFailed where some are still led here after `close_timeout_ms`; NotReady; ValueError.
        """
        self._check_open()
        engine = self._engine
        engine.drain(_checked(hold_ms, engine.state.limits), self._now())
        self._wake()
        with trio.move_on_after(self._drain_within_ms / 1000):
            while engine.state.led:  # noqa: ASYNC110  # the engine has no event for it
                await trio.sleep(POLL_S)
            await trio.lowlevel.checkpoint()
            return
        left = ", ".join(map(str, sorted(engine.state.led)))
        raise NotYet(
            f"after {self._drain_within_ms} ms server {engine.state.me} still leads groups {left}: no other"
            " server looks well. It goes on trying until the drain ends"
        )

    def bring_home(self) -> None:
        """End what `transfer` and `drain` hold at this server: groups return where they belong."""
        self._check_open()
        self._engine.bring_home(self._now())
        self._wake()

    def _leader(self, group: GroupId) -> ServerId | None:
        return self._engine.state.leaders[group][1]


def _checked(hold_ms: int | None, limits: EngineLimits) -> int:
    if hold_ms is None:
        return limits.leader_hold_ms
    if not 1 <= hold_ms <= limits.leader_hold_ms_max:
        raise ValueError(f"hold_ms is {hold_ms!r}; allowed: 1 to {limits.leader_hold_ms_max}")
    return hold_ms


def _shown(leader: ServerId | None) -> str:
    return "nobody at the moment" if leader is None else f"server {leader}"
