"""A process that is asked by its stdin, without Trio: assignment and requests, one JSON value a line.

The end of stdin ends it at once, whatever it does then: when the harness dies, so does all that it started.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from bench.member import write


def serve(begin: Callable[[dict[str, Any]], tuple[Any, Any]]) -> None:
    """Begin with the assignment, answer; then answer each request with what that method returns. Never ends.

    `begin` returns who is asked, and the first answer.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    try:
        asked, answer = begin(json.loads(lines.get()))
        while True:
            write(ok=answer)
            request = json.loads(lines.get())
            answer = getattr(asked, request.pop("do"))(**request)
    except BaseException:  # noqa: BLE001  # it is shown, and ends the process, whatever threads there are
        traceback.print_exc()
        os._exit(1)


def _read(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)
