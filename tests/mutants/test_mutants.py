"""The net holds: every mutant is caught, by a seed that is on record, and leaves nothing behind."""

from __future__ import annotations

from types import CodeType

import pytest

from tests.mutants import hunt
from tests.mutants.catalogue import MUTANTS, Mutant
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


CAUGHT = [mutant for mutant in MUTANTS if mutant.name in hunt.load()]
"""Those with a kill on record. The table in the docs names the others: each is a hole in the net."""


@pytest.mark.parametrize("mutant", CAUGHT, ids=_named)
def test_a_mutant_is_caught_by_the_seed_on_record(mutant: Mutant) -> None:
    """Where a change of the product or of the swarm lets it escape: `python -m tests.mutants NAME`."""
    kill = hunt.load()[mutant.name]
    found = hunt.attempt(mutant, kill.seed)
    assert found is not None, (
        f"seed {kill.seed} does not catch it any more; hunt again: python -m tests.mutants {mutant.name}"
    )
