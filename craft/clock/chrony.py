"""The operating system's clock as chrony keeps it: chrony itself is asked how good it is.

Why, where the kernel can be asked: chrony knows more. It tells the kernel nothing without `rtcsync`, and in a
container its daemon may keep the clock of the host while the kernel's word is filtered.

Invariants
- Only a clock that follows a source beyond this machine has a known error: `local` is not one.
- Whatever goes wrong (no chronyc, no daemon, no rights, a new format) is a state in words, and the error
  unknown; never an exception.

Reference: chronyc(1), `tracking`; chrony's own bound is `|system time| + root dispersion + root delay / 2`.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import trio

from craft.clock.kernel import Kept
from craft.clock.samples import SECOND_NS, drift_ns
from craft.types import Timestamp

COMMAND = ("chronyc", "-n", "-c", "tracking")
"""`-n`: no names are looked up; `-c`: comma-separated values."""

ASK_S = 16
"""How often chronyc is run."""

TIMEOUT_S = 5
"""What takes longer has hung, and is killed."""

ANSWER_S_MAX = 160
"""After this long without an answer the error is unknown: ten questions are lost."""

FIELDS = 14
FOLLOWING = ("Normal", "Insert second", "Delete second")
"""Leap states of a clock that is synchronised."""

NO_REFERENCE = "00000000"
LOCAL_REFERENCE = "7F7F0101"
STRATUM_MAX = 15

NOT_YET = Kept(None, "chrony has not been asked yet")


def parse(text: str) -> Kept:
    """What one line of `chronyc -c tracking` says of the clock, when it was printed."""
    fields = text.strip().split(",")
    if len(fields) != FIELDS:
        return Kept(None, f"chronyc printed {text.strip()!r:.80}: {len(fields)} fields, expected {FIELDS}")
    reference, name, leap = fields[0], fields[1], fields[13]
    if leap not in FOLLOWING or reference == NO_REFERENCE:
        return Kept(None, f"chrony says that it is not synchronised ({leap})")
    if reference == LOCAL_REFERENCE:
        return Kept(None, "chrony follows nothing but its own clock (local)")
    try:
        stratum, correction, delay, dispersion = (
            int(fields[2]),
            *map(float, (fields[4], fields[10], fields[11])),
        )
    except ValueError as error:
        return Kept(None, f"chronyc printed {text.strip()!r:.80}: {error}")
    distance_s = abs(correction) + dispersion + delay / 2
    if not (1 <= stratum <= STRATUM_MAX and dispersion >= 0 and delay >= 0 and math.isfinite(distance_s)):
        return Kept(None, f"chronyc printed impossible figures: {text.strip()!r:.120}")
    return Kept(math.ceil(distance_s * SECOND_NS), f"kept by chrony, which follows {name}")


class ChronyClock:
    """`time.time_ns`, and the error that chrony states for it."""

    def __init__(
        self,
        *,
        command: Sequence[str] = COMMAND,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._command = tuple(command)
        self._monotonic = monotonic
        self._kept = NOT_YET
        self._asked_ns = 0
        self._silence = ""  # why there is no answer now

    def now(self) -> Timestamp:
        """Nanoseconds since the Unix epoch, as the operating system reads them."""
        return time.time_ns()

    def error(self) -> int | None:
        """Nanoseconds: what chrony said, and the drift since; None where it is not synchronised or silent."""
        age_ns = self._monotonic() - self._asked_ns
        if self._kept.error_ns is None or age_ns > ANSWER_S_MAX * SECOND_NS:
            return None
        return self._kept.error_ns + drift_ns(age_ns)

    def status(self) -> dict[str, Any]:
        """What chrony said, in words; or why it says nothing."""
        return {"source": "chrony", "state": self._silence or self._kept.state, "error_ns": self.error()}

    async def run(self) -> None:
        """Ask every `ASK_S` seconds, until cancelled."""
        while True:
            await self.ask()
            await trio.sleep(ASK_S)

    async def ask(self) -> None:
        """Ask once. Where nothing is said, what was said before holds until it is too old."""
        asked_ns = self._monotonic()
        answer = await self._answer()
        if isinstance(answer, str):
            self._silence = answer
        else:
            self._kept, self._asked_ns, self._silence = answer, asked_ns, ""

    async def _answer(self) -> Kept | str:
        """What chrony says, or why it says nothing."""
        try:
            with trio.fail_after(TIMEOUT_S):
                done = await trio.run_process(
                    self._command,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    env={**os.environ, "LC_ALL": "C"},
                )
        except trio.TooSlowError:
            return f"chronyc did not answer within {TIMEOUT_S} s"
        except (OSError, subprocess.SubprocessError) as error:
            return f"chronyc cannot be run: {error}"
        text = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            said = (text + done.stderr.decode("utf-8", "replace")).strip()
            return f"chronyc failed with {done.returncode}: {said:.80}"
        return parse(text)
