"""Three servers in one process, each leading a Raft group; all count in the same order.

Run it: python examples/01_counter.py
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

import craft


class Counter:
    """A replicated state machine: the sum of all commands, and what it was after each."""

    def __init__(self) -> None:
        self.total = 0
        self.history: list[int] = []

    def apply_batch(self, batch: craft.Batch) -> list[int]:
        """Called on every server with the same batches in the same order; returns one result a command."""
        results = []
        for command in batch:
            self.total += int(command)
            self.history.append(self.total)
            results.append(self.total)
        return results


async def main() -> None:
    """Write through every server at once, then read from each."""
    network = craft.MemoryNetwork()
    addresses = {1: "127.0.0.1:7401", 2: "127.0.0.1:7402", 3: "127.0.0.1:7403"}  # names only, in this network
    async with AsyncExitStack() as stack:
        servers = []
        for server_id in addresses:
            config = craft.Config(cluster="counter", server_id=server_id, servers=addresses)
            opening = craft.open_server(config, Counter(), transport=network.transport(server_id))
            servers.append(await stack.enter_async_context(opening))

        async with trio.open_nursery() as nursery:
            for server in servers:
                for amount in range(1, 11):
                    nursery.start_soon(server.propose, b"%d" % amount)

        for server in servers:
            total, history = await server.read(lambda counter: (counter.total, list(counter.history)))
            print(f"server {server.config.server_id}: total {total} after {len(history)} commands")
        assert len({tuple(server.state_machine.history) for server in servers}) == 1, "one order everywhere"
        print("all servers counted in the same order")


if __name__ == "__main__":
    trio.run(main)
