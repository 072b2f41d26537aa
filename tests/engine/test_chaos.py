"""Random seeds, all faults mixed, then healing: nothing answered is lost, and everything is answered.

A failure prints its seed and how to repeat it: `python -m tests.engine.chaos --seed N`.
"""

from __future__ import annotations

import pytest

from tests.engine import chaos

SEEDS = range(1, 41)


@pytest.mark.parametrize("first", SEEDS[::5])
def test_chaos(first: int) -> None:
    """Five seeds, each a cluster of its own shape with its own kinds of fault."""
    for seed in range(first, first + 5):
        chaos.run(seed)


def test_a_failing_seed_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the seed, the faults and the command."""

    def fail(_chaos: chaos.Chaos) -> None:
        raise AssertionError("broken")

    monkeypatch.setattr(chaos.Chaos, "demand_answers", fail)
    with pytest.raises(AssertionError) as caught:
        chaos.run(4)
    assert "repeat: python -m tests.engine.chaos --seed 4" in caught.value.__notes__[0]


def test_every_kind_of_fault_occurs() -> None:
    """The seeds that run here suffer all that there is to suffer."""
    assert set(chaos.FAULTS) == {kind for seed in SEEDS for kind in chaos.Chaos(seed).kinds}
