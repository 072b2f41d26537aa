"""Test your own state machine in the simulator: `simulate` runs it through crashes, partitions and replays.

    from craft.testing import simulate

    def test_my_machine() -> None:
        simulate(MyMachine, commands=lambda rng: b"add %d" % rng.randint(1, 9), seeds=50)

These are the public names of `craft.testing`; its other modules may change between versions.
"""

from craft.testing.model import UNKNOWN_RESULT, Model
from craft.testing.user import Report, Violated, simulate

__all__ = ["UNKNOWN_RESULT", "Model", "Report", "Violated", "simulate"]
