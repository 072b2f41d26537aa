"""The engine: every group of one server, pure. `Engine` is the facade; the modules are the parts of a turn.

`state` what is remembered · `leading` stamps, commands, closing · `linking` frames, heartbeats, commits,
fetching · `loading` entries back from disk · `merging` the merged log · `proposing` requests and sessions ·
`reading` quorum reads · `placing` moving leaders · `status`.
"""

from craft.engine.core import Engine

__all__ = ["Engine"]
