"""Structured, rate-limited logging through the standard library.

Below the adapters, which log too. Loggers bear their modules' names; craft adds no handler.

- A line reads `message key=value key=value`; a handler that wants more finds `record.event` (the message
  alone) and `record.fields` (the values as they are).
- What a peer, a disk or a clock can make happen a thousand times a second goes through a `RateLimited`,
  which says how many it left out. Its memory is bounded too.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

KEYS_MAX = 1024
"""Keys that a RateLimited remembers; beyond it the one quiet for longest is forgotten."""

_BARE = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+")


def render(message: str, fields: dict[str, Any]) -> str:
    """`message key=value …`. What would not stay one word on one line is quoted as in JSON."""
    return " ".join([message, *(f"{key}={_word(value)}" for key, value in fields.items())])


def _word(value: Any) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def event(
    logger: logging.Logger,
    level: int,
    message: str,
    /,
    *,
    exc_info: BaseException | None = None,
    stacklevel: int = 1,
    **fields: Any,
) -> None:
    """Log one event with its values. Costs next to nothing where the level is off."""
    if logger.isEnabledFor(level):
        logger.log(
            level,
            render(message, fields),  # without arguments, so that a % in it is only a %
            exc_info=exc_info,
            extra={"event": message, "fields": fields},
            stacklevel=stacklevel + 1,
        )


class RateLimited:
    """Logs an event of one kind at most once an interval; the next one says how many were left out between.

    `key` tells kinds apart: usually what happened and to whom. Under Trio, `monotonic_s` is
    `trio.current_time`.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        interval_ms: int,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._logger = logger
        self._interval_s = interval_ms / 1000
        self._monotonic_s = monotonic_s
        self._kinds: dict[Any, tuple[float, int]] = {}  # key → (when last logged, left out since)

    def event(
        self, key: Any, level: int, message: str, /, *, exc_info: BaseException | None = None, **fields: Any
    ) -> bool:
        """Log it, unless one of its kind was logged within the interval. Was it logged?"""
        if not self._logger.isEnabledFor(level):
            return False
        now = self._monotonic_s()
        logged, left_out = self._kinds.pop(key, (-float("inf"), 0))
        if now - logged < self._interval_s:
            self._kinds[key] = (logged, left_out + 1)
            return False
        self._kinds[key] = (now, 0)
        if len(self._kinds) > KEYS_MAX:
            del self._kinds[next(iter(self._kinds))]
        if left_out:
            fields["suppressed"] = left_out
        event(self._logger, level, message, exc_info=exc_info, stacklevel=2, **fields)
        return True
