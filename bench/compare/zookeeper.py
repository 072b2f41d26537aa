"""ZooKeeper, an ensemble of three, by `setData` over its own protocol."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.compare.connected import connected
from bench.compare.peer import SERVERS, SYNCED_MAJORITY, Load, Peer, Running, lacking, program
from bench.compare.programs import Program, output_of, programs, start
from bench.processes import free_ports

JAR = Path("/usr/share/java/zookeeper.jar")
"""Where Debian and Ubuntu put it; what it depends on is found from it."""

MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
VERSION_MAIN = "org.apache.zookeeper.version.VersionInfoMain"
PACKAGE = "zookeeper"
TICK_MS = 2000
HEAP = "-Xmx512m"
SERVING = re.compile(rb"Mode: (leader|follower)")


def configuration(directory: Path, client: int, ensemble: list[tuple[int, int]]) -> str:
    """One server's; the ports of the ensemble are for followers and for elections."""
    members = "".join(
        f"server.{number}=127.0.0.1:{peers}:{elections}\n"
        for number, (peers, elections) in enumerate(ensemble, start=1)
    )
    return (
        f"tickTime={TICK_MS}\ninitLimit=10\nsyncLimit=5\ndataDir={directory}\nclientPort={client}\n"
        "clientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n"
        f"4lw.commands.whitelist=srvr\n{members}"
    )


class ZooKeeper(Peer):
    """What came before etcd, in Java."""

    name = "zookeeper"
    generator = "bench.compare.sockets (setData)"

    def missing(self) -> str | None:
        """Java comes with it."""
        if not JAR.exists():
            return f"{JAR} is missing: apt-get install {PACKAGE}"
        return lacking(programs={"java": PACKAGE})

    def version(self) -> str:
        """Of the servers."""
        said = output_of(program("java") or "java", "-cp", str(JAR), VERSION_MAIN)
        found = re.search(r"version ([\d.]+\d)", said)
        return found.group(1) if found else "unknown"

    def durability(self) -> tuple[str, str]:
        """With `forceSync`, its default."""
        return SYNCED_MAJORITY

    @asynccontextmanager
    async def running(self, load: Load, directory: Path) -> AsyncIterator[Running]:
        """Three servers with the defaults; each connection is a session."""
        ports = free_ports(3 * SERVERS)
        clients, ensemble = (
            ports[:SERVERS],
            list(zip(ports[SERVERS::2], ports[SERVERS + 1 :: 2], strict=True)),
        )
        async with programs() as servers:
            for number, client in enumerate(clients, start=1):
                place = directory / f"server-{number}"
                place.mkdir()
                (place / "myid").write_text(f"{number}\n", encoding="ascii")
                (place / "zoo.cfg").write_text(configuration(place, client, ensemble), encoding="utf-8")
                command = [program("java") or "java", HEAP, "-cp", str(JAR), MAIN, "zoo.cfg"]
                await start(servers, f"zookeeper {number}", command, place, {})
            for server, client in zip(servers, clients, strict=True):
                await _serving(server, client)
            async with connected("zookeeper", load, directory, servers, clients) as running:
                yield running


async def _serving(server: Program, port: int) -> None:
    async def ready() -> bool:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"srvr")
                said = b"".join([piece async for piece in stream])
        except (OSError, trio.BrokenResourceError):
            return False
        return SERVING.search(said) is not None

    await server.until(ready)
