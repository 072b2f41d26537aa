"""The picture of a run: what the servers of a simulated cluster did, along virtual time, as one SVG text.

Knows: the events of a trace. Must not know: how they came about, files, terminals.

`render` draws a window of a run. `telling_window` picks the one that tells most, `last_window` the end.

Invariants
- The same events give the same bytes, in any process.
- A picture has at most `ELEMENTS_MAX` elements, however long the run was, and says in words what it left out.
"""

from craft.testing.timeline.drawing import ELEMENTS_MAX, MESSAGES_MAX, render
from craft.testing.timeline.window import WINDOW_NS, last_window, telling_window

__all__ = ["ELEMENTS_MAX", "MESSAGES_MAX", "WINDOW_NS", "last_window", "render", "telling_window"]
