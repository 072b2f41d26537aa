"""The course of the demo: start, write everywhere, kill one, go on, bring it back, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from craft.cli.demo.cluster import DemoFailed, running
from craft.cli.demo.load import Load, Station
from craft.cli.demo.scene import SAMPLE_S, Scene
from craft.cli.demo.verify import verify
from craft.cli.demo.view import View

MACHINE = "craft.cli.demo.machine:Ledger"
KILL_AT, RESTART_AT = 0.35, 0.65
"""When, as shares of the time of writing."""

RESUME_TIMEOUT_S = 30
CATCH_UP_TIMEOUT_S = 30
SERVERS_MIN_TO_KILL = 3
POLL_S = 0.02
SETTLED_S, FLOWING_S = 1.0, 0.2
"""How long after a kill its effect has surely begun, and how lately a merge has moved that flows."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    servers: int = 3
    groups: int | None = None
    seconds: float = 12.0
    kill: bool = True
    state_machine: str = MACHINE


class Story:
    """One run of the demo."""

    def __init__(self, options: Options, directory: Path, view: View) -> None:
        self._options = options
        self._directory = directory
        self._view = view
        self._began = trio.current_time()

    async def run(self) -> None:
        """All of it. Raises DemoFailed with the first thing that must not be."""
        options, view = self._options, self._view
        view.say(f"craft demo: starting {options.servers} servers below {self._directory}")
        async with running(
            self._directory,
            servers=options.servers,
            groups=options.groups,
            state_machine=options.state_machine,
        ) as processes:
            load = Load(processes)
            self._scene = Scene(load, groups=options.groups or max(3, options.servers))
            await self._write_and_kill(load)
            view.say("")
            await verify(load, lambda text: view.say(f" {view.ink.good('✓')} {text}"))

    async def _write_and_kill(self, load: Load) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            nursery.start_soon(self._sample)
            nursery.start_soon(self._show)
            await self._acts(load)
            await load.stop_writing()
            self._tell(f"{load.answered} writes are answered; comparing the servers")
            nursery.cancel_scope.cancel()

    # -- the acts ---------------------------------------------------------------------------------

    async def _acts(self, load: Load) -> None:
        seconds = self._options.seconds
        began = trio.current_time()
        self._tell(f"{self._options.servers} servers are ready; writing through all of them at once")
        if self._may_kill():
            await trio.sleep_until(began + seconds * KILL_AT)
            victim = _victim(load.stations)
            await self._kill(load, victim)
            await trio.sleep_until(began + seconds * RESTART_AT)
            await self._restart(load, victim)
        await trio.sleep_until(began + seconds)

    def _may_kill(self) -> bool:
        enough = self._options.servers >= SERVERS_MIN_TO_KILL
        if self._options.kill and not enough:
            self._tell(f"no server is killed: {self._options.servers} have no majority without it")
        return self._options.kill and enough

    async def _kill(self, load: Load, victim: Station) -> None:
        led = " and ".join(f"group {group}" for group in victim.leads()) or "no group"
        survivors = [station for station in load.stations if station is not victim]
        killed_at = trio.current_time()
        for station in survivors:
            station.measure()
        await victim.process.kill()
        self._tell(self._view.ink.bad(f"SIGKILL to server {victim.server_id}, which led {led}"))
        await _until(
            lambda: _flows(survivors, since=killed_at),
            RESUME_TIMEOUT_S,
            f"the merge does not go on {RESUME_TIMEOUT_S} s after the end of server {victim.server_id}",
        )
        gaps = ", ".join(f"{station.gap * 1000:.0f}" for station in survivors)
        names = ", ".join(str(station.server_id) for station in survivors)
        self._tell(f"the merge stood still for {gaps} ms on servers {names}")

    async def _restart(self, load: Load, victim: Station) -> None:
        goal = load.top
        self._tell(f"server {victim.server_id} is started again, on its old directory")
        began = trio.current_time()
        await victim.process.restart()
        await _until(
            lambda: victim.position >= goal,
            CATCH_UP_TIMEOUT_S,
            f"server {victim.server_id} is not at position {goal} {CATCH_UP_TIMEOUT_S} s after its return",
        )
        took = f"{trio.current_time() - began:.1f} s after its start"
        self._tell(self._view.ink.good(f"server {victim.server_id} has caught up, {took}"))

    # -- showing ----------------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        self._scene.elapsed = trio.current_time() - self._began
        self._view.event(self._scene, text)

    async def _sample(self) -> None:
        before = trio.current_time()
        while True:
            await trio.sleep(SAMPLE_S)
            now = trio.current_time()
            self._scene.sample(now - before)
            before = now

    async def _show(self) -> None:
        while True:
            await trio.sleep(self._view.interval)
            self._scene.elapsed = trio.current_time() - self._began
            self._view.show(self._scene)


def _victim(stations: list[Station]) -> Station:
    """One that leads a group: the loss of another would hurt nobody. Any of them."""
    leading = [station for station in stations if station.leads()] or stations
    return leading[len(leading) // 2]


def _flows(survivors: list[Station], *, since: float) -> bool:
    """Does the merge move again on all of them? Asked a while after the kill."""
    now = trio.current_time()
    return now - since >= SETTLED_S and all(now - station.moved_at < FLOWING_S for station in survivors)


async def _until(condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
    with trio.move_on_after(timeout_s):
        while not condition():  # noqa: ASYNC110  # it looks at the clock too
            await trio.sleep(POLL_S)
        return
    raise DemoFailed(failure)
