"""Coverage marks: "this rare path really ran".

Floor 0. A mark stands on a path that a test can easily miss; the simulator shows how often each was reached,
and a search that reaches none of them has proved little. Counting costs a dictionary entry, so marks stand on
rare paths only.

Reference: FoundationDB's TEST macro, TigerBeetle's `maybe`.
"""

from __future__ import annotations

from collections import Counter

reached: Counter[str] = Counter()
"""How often each mark was passed in this process. For watching only: nothing may depend on it."""


def mark(name: str) -> None:
    """This path was taken."""
    reached[name] += 1
