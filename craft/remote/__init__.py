"""A client with a session: any of several servers, many calls at once, and each takes effect exactly once.

    async with craft.connect(["10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001"]) as client:
        print(await client.propose(b"5"))

`sessions` counts requests, `links` keeps a connection, `client` brings both together.
"""

from craft.remote.client import Client, connect

__all__ = ["Client", "connect"]
