"""chrony's word: what chronyc prints, and what a real chronyd on loopback says and answers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
import trio

from craft.clock.chrony import ANSWER_S_MAX, ChronyClock, parse
from craft.clock.ntp import SYNCHRONISED, NtpClock
from craft.clock.samples import DRIFT_PPM_MAX, SECOND_NS

MS = 1_000_000
GOOD = (
    "C0248F97,192.36.143.151,2,1700000000.123456789,-0.000250000,-0.000120000,0.000310000,"
    "-12.345,0.001,0.045,0.004000000,0.000750000,64.2,Normal\n"
)


def changed(**fields: str) -> str:
    """The good line with other fields, by their place: `_4="x"`."""
    parts = GOOD.strip().split(",")
    for place, text in fields.items():
        parts[int(place[1:])] = text
    return ",".join(parts)


def test_the_root_distance_is_the_error() -> None:
    """What is still to be corrected, the dispersion, and half of the delay: 0.25 + 0.75 + 2 ms."""
    kept = parse(GOOD)
    assert kept.error_ns is not None and 3 * MS <= kept.error_ns <= 3 * MS + 1
    assert "192.36.143.151" in kept.state
    for leap in ("Insert second", "Delete second"):
        assert parse(changed(_13=leap)).error_ns == kept.error_ns


UNKNOWN = {
    "unsynchronised": (changed(_13="Not synchronised"), "not synchronised"),
    "no_reference": (changed(_0="00000000"), "not synchronised"),
    "local": (changed(_0="7F7F0101"), "nothing but its own clock"),
    "empty": ("", "1 fields, expected 14"),
    "more_fields": (GOOD.strip() + ",1", "15 fields, expected 14"),
    "prose": ("506 Cannot talk to daemon\n", "'506 Cannot talk to daemon': 1 fields"),
    "no_number": (changed(_11="?"), "could not convert"),
    "negative": (changed(_11="-1"), "impossible figures"),
    "infinite": (changed(_4="inf"), "impossible figures"),
    "not_a_number": (changed(_10="nan"), "impossible figures"),
    "stratum": (changed(_2="16"), "impossible figures"),
}


@pytest.mark.parametrize(("line", "reason"), UNKNOWN.values(), ids=UNKNOWN)
def test_anything_else_is_unknown_and_says_why(line: str, reason: str) -> None:
    """No error is made up from what chrony did not say."""
    kept = parse(line)
    assert kept.error_ns is None
    assert reason in kept.state


def printing(text: str, code: int = 0) -> tuple[str, ...]:
    """A command that prints it."""
    return (sys.executable, "-c", f"print({text!r}, end=''); raise SystemExit({code})")


async def test_what_chrony_said_ages() -> None:
    """The error grows by the drift, and is unknown when chrony has been silent for long."""
    now = [0]
    clock = ChronyClock(command=printing(GOOD), monotonic=lambda: now[0])
    assert clock.error() is None
    await clock.ask()
    first = clock.error()
    assert first is not None
    now[0] = 10 * SECOND_NS
    assert clock.error() == first + 10 * SECOND_NS * DRIFT_PPM_MAX // 10**6
    now[0] = (ANSWER_S_MAX + 1) * SECOND_NS
    assert clock.error() is None


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/no/such/chronyc",), "cannot be run"),
        (printing("506 Cannot talk to daemon", 1), "failed with 1: 506 Cannot talk to daemon"),
    ],
)
async def test_a_chronyc_that_fails_is_a_reason(command: Sequence[str], reason: str) -> None:
    """Missing or refused: the error is unknown, the state says why, and nothing is raised."""
    clock = ChronyClock(command=command)
    await clock.ask()
    assert clock.error() is None
    assert reason in clock.status()["state"]


async def test_what_was_said_holds_through_a_short_silence(tmp_path: Path) -> None:
    """Chronyd is restarted: what it said before counts until it is too old."""
    line = tmp_path / "line"
    line.write_text(GOOD)
    clock = ChronyClock(command=("cat", str(line)))
    await clock.ask()
    line.unlink()
    await clock.ask()
    assert clock.error() is not None
    assert "failed with 1" in clock.status()["state"]
    line.write_text(changed(_13="Not synchronised"))
    await clock.ask()
    assert clock.error() is None, "but what it says counts at once"


# -- a real one ------------------------------------------------------------------------------------

CHRONYD = shutil.which("chronyd") or shutil.which("/usr/sbin/chronyd")
needs_chronyd = pytest.mark.skipif(CHRONYD is None, reason="chronyd is not installed")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        port: int = endpoint.getsockname()[1]
        return port


@contextlib.contextmanager
def chronyd(*directives: str) -> Iterator[Path]:
    """A chronyd in the foreground that touches no clock, its control socket in a directory of its own."""
    assert CHRONYD is not None
    # not pytest's own directory: a socket's path must be short
    with tempfile.TemporaryDirectory(prefix="craft-chrony-", dir="/tmp") as name:
        directory = Path(name)
        control = directory / "control"
        user = Path("/proc/self").owner()
        lines = ["cmdport 0", f"bindcmdaddress {control}", f"pidfile {directory}/pid", *directives]
        (directory / "conf").write_text("\n".join(lines) + "\n")
        command = (CHRONYD, "-x", "-d", "-u", user, "-f", str(directory / "conf"))
        with (
            (directory / "log").open("w") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as daemon,
        ):
            try:
                yield control
            finally:
                daemon.terminate()
                daemon.wait(timeout=30)


def serving(port: int) -> tuple[str, ...]:
    return (f"port {port}", "bindaddress 127.0.0.1", "allow 127.0.0.1", "local stratum 1")


@pytest.mark.system
@needs_chronyd
async def test_the_clock_follows_a_real_time_server() -> None:
    """Chrony serves this machine's own time, so the right offset is 0, and it is within the stated error."""
    port = free_port()
    with chronyd(*serving(port)):
        clock = NtpClock(
            [("127.0.0.1", port)], rng=Random(1), system=lambda: time.time_ns() + 3600 * SECOND_NS
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            with trio.fail_after(60):
                while clock.status()["state"] != SYNCHRONISED:  # noqa: ASYNC110  # it waits for a process
                    await trio.sleep(0.05)
            error = clock.error()
            assert error is not None and error < SECOND_NS
            earliest = time.time_ns()
            reading = clock.now()
            assert earliest - error <= reading <= time.time_ns() + error
            nursery.cancel_scope.cancel()


@pytest.mark.system
@needs_chronyd
async def test_a_real_chrony_is_asked_how_good_the_clock_is() -> None:
    """One that follows a server states its error; one that is only `local` states none."""
    port = free_port()
    with chronyd(*serving(port)) as control, chronyd("port 0", following(port)) as follower:
        server = ChronyClock(command=tracking(control))
        client = ChronyClock(command=tracking(follower))
        with trio.fail_after(90):
            while client.error() is None:
                await trio.sleep(0.2)
                await client.ask()
        await server.ask()
        assert "127.0.0.1" in client.status()["state"]
        assert (server.error(), server.status()["state"]) == (
            None,
            "chrony follows nothing but its own clock (local)",
        )


def following(port: int) -> str:
    return f"server 127.0.0.1 port {port} minpoll -2 maxpoll -2 iburst"


def tracking(control: Path) -> tuple[str, ...]:
    return ("chronyc", "-h", str(control), "-n", "-c", "tracking")
