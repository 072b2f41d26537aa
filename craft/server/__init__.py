"""The server: the Trio shell around the engine.

It moves bytes and keeps time; it decides nothing about the protocol.

`core` the turn · `waking` when it is due · `inbox` what has arrived · `calls` who waits for an answer ·
`reads` who waits to read · `listener` clients and administration · `measures` the metrics · `watching`
what is worth a line in the log · `opening` `open_server`.
"""

from craft.server.calls import Committed
from craft.server.core import Server
from craft.server.opening import open_server
from craft.server.reads import Stale

__all__ = ["Committed", "Server", "Stale", "open_server"]
