"""Planted mutants: small wrong versions of craft, patched in memory, which the simulator must catch.

They test the tests. See `catalogue.py` for the mutants and `hunt.py` for the hunt:
`python -m tests.mutants` hunts all and writes the table into the docs.
"""
