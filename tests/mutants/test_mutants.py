"""The net holds: every mutant is caught, by a seed that is on record, and leaves nothing behind."""

from __future__ import annotations

from types import CodeType

import pytest

from tests.mutants import hunt
from tests.mutants.catalogue import ALIVE, MUTANTS, Mutant
from tests.mutants.rewriting import Rewrite, rewritten


def _named(mutant: Mutant) -> str:
    return mutant.name


def _does(code: CodeType) -> tuple[object, ...]:
    """What a function does, apart from where its source stands."""
    return (
        code.co_code,
        code.co_names,
        tuple(str(one) for one in code.co_consts if not isinstance(one, CodeType)),
    )


def test_there_are_enough_and_each_has_its_own_name() -> None:
    """At least 25, told apart by name and by what is wrong."""
    assert len(MUTANTS) >= 25
    assert (
        len({mutant.name for mutant in MUTANTS}) == len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=_named)
def test_a_mutant_changes_the_product_and_leaves_it_as_it_was(mutant: Mutant) -> None:
    """Its fragments are found in today's source, and the code is the original's again behind it."""
    functions = [rewrite.function() for rewrite in mutant.rewrites]
    before = [function.__code__ for function in functions]
    with mutant.planted():
        for function, code in zip(functions, before, strict=True):
            assert _does(function.__code__) != _does(code)
    assert [function.__code__ for function in functions] == before


def test_a_fragment_that_is_gone_is_an_error() -> None:
    """A mutant of code that has changed must not test nothing without a word."""
    stale = Rewrite("craft.clock.stamper:stamp", "no such code", "")
    with pytest.raises(LookupError, match="found 0 times"), rewritten((stale,)):
        pass


SEEDS_AGAIN = 12
"""Where the seed on record has grown old: so many of the usual ones, from 1 on, before the net has a hole."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=_named)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    """By the seed on record; where the product has changed since, by one of the first few."""
    kill = hunt.load().get(mutant.name)
    if mutant.name in ALIVE:
        assert kill is None, "caught: it is no hole in the net any more"
        pytest.xfail("a hole in the net, known by name")
    assert kill is not None, f"never caught; hunt it: python -m tests.mutants {mutant.name}"
    assert any(hunt.attempt(mutant, seed) for seed in (kill.seed, *range(1, SEEDS_AGAIN + 1))), (
        f"seed {kill.seed} does not catch it any more; hunt again: python -m tests.mutants {mutant.name}"
    )
