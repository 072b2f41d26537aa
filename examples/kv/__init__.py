"""A replicated key-value store that existing Redis clients can use: an example of building on `craft`.

The engine is pure, and stands on a ladder: `replies`, `globs`, `longdouble`, `slots` < `values` < `keyspace`
< `snapshots`, `commands` < `machine`, the state machine that craft applies.
"""
