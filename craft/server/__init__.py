"""The server: the Trio shell around the engine.

It moves bytes and keeps time; it decides nothing about the protocol.

`core` the turn · `waking` when it is due · `inbox` what has arrived · `calls` who waits for an answer ·
`applying` the state machine · `listener` clients and administration · `measures` the metrics ·
`opening` `open_server`.
"""

from craft.server.core import Server
from craft.server.opening import open_server

__all__ = ["Server", "open_server"]
