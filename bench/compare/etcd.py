"""etcd, three members, loaded over its own gRPC API by h2load, a load generator in C.

h2load sends one request again and again; the request is made here, by hand, since it is eighty bytes. It sees
the status of HTTP, which is 200 for a gRPC error too: so etcd's revision, which counts its writes, is held
against the answers.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.compare.peer import (
    DRIVES,
    SERVERS,
    SYNCED_MAJORITY,
    Driven,
    Load,
    Peer,
    Running,
    differing,
    lacking,
    program,
)
from bench.compare.programs import POLL_S, Program, http_json, output_of, programs, start, together
from bench.figures import milliseconds, percentile
from bench.loading import evenly
from bench.processes import BenchError, free_ports

PUT = "/etcdserverpb.KV/Put"
KEY_FIELD, VALUE_FIELD = 1, 2
"""Of etcdserverpb.PutRequest."""

LENGTH_DELIMITED = 2
REVISION_AT_FIRST = 1
AGREE_WITHIN_S = 20.0
OK = 200
MICROSECOND_S = 1e-6


def varint(value: int) -> bytes:
    """As Protocol Buffers write it: seven bits a byte, the least first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def put_frame(key: bytes, value: bytes) -> bytes:
    """A PutRequest as gRPC sends it: not compressed, its length, the message."""
    message = b"".join(
        varint(field << 3 | LENGTH_DELIMITED) + varint(len(content)) + content
        for field, content in ((KEY_FIELD, key), (VALUE_FIELD, value))
    )
    return b"\0" + len(message).to_bytes(4, "big") + message


def succeeded(output: str) -> int:
    """The requests that h2load says went well. Raises BenchError where any did not."""
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if found is None:
        raise BenchError(f"h2load says nothing of its requests:\n{output}")
    well, *badly = map(int, found.groups())
    if any(badly):
        raise BenchError(f"h2load had requests that failed: {found.group()}")
    return well


def requests_of(lines: Iterable[str]) -> list[tuple[float, float]]:
    """When each answered request of h2load's log began, and how long it took, in seconds."""
    found = []
    for line in lines:
        began, status, taken, *_ = line.split("\t")
        if int(status) == OK:
            found.append((int(began) * MICROSECOND_S, int(taken) * MICROSECOND_S))
    return found


def driven_of(requests: list[tuple[float, float]]) -> Driven:
    """All requests of all generators together, from the first one's beginning to the last one's end."""
    if not requests:
        return Driven(answered=0, per_second=0.0, p50_ms=None, p99_ms=None)
    taken = sorted(one for _, one in requests)
    elapsed = max(began + one for began, one in requests) - min(began for began, _ in requests)
    return Driven(
        answered=len(requests),
        per_second=len(requests) / elapsed,
        p50_ms=milliseconds(percentile(taken, 0.5)),
        p99_ms=milliseconds(percentile(taken, 0.99)),
    )


class _Members(Running):
    def __init__(self, load: Load, directory: Path, servers: list[Program], urls: list[str]) -> None:
        self.pids = [one.pid for one in servers]
        self.generator_pids = []
        self._load = load
        self._urls = urls
        self._directory = directory
        for place in range(len(urls)):
            self._body(place).write_bytes(put_frame(f"bench-{place}".encode(), b"x" * load.size))

    def _body(self, place: int) -> Path:
        return self._directory / f"put-{place}"

    def _log(self, place: int) -> Path:
        return self._directory / f"requests-{place}"

    async def drive(self, seconds: float) -> Driven:
        """One h2load a member, each with its part of the connections."""
        commands = [
            [
                "h2load", f"--clients={clients}", f"--max-concurrent-streams={self._load.pipeline}",
                f"--duration={round(seconds * 1000)}ms", f"--data={self._body(place)}",
                f"--log-file={self._log(place)}", "--header=content-type: application/grpc",
                "--header=te: trailers", url + PUT,
            ]
            for place, (url, clients) in enumerate(
                zip(self._urls, evenly(self._load.clients, SERVERS), strict=True)
            )
        ]  # fmt: skip
        said = await together(commands, seconds)
        requests = []
        for place, output in enumerate(said):
            with self._log(place).open(encoding="ascii") as log:
                logged = requests_of(log)
            if len(logged) != succeeded(output):
                raise BenchError(f"h2load logged {len(logged)} requests and says {succeeded(output)}")
            requests += logged
            self._log(place).unlink()
        return driven_of(requests)

    async def verify(self, answered: int) -> list[str]:
        """The revision counts the writes; what was on its way when h2load stopped may have taken effect."""
        unanswered = DRIVES * self._load.clients * self._load.pipeline
        found: dict[str, tuple[int, int]] = {}
        with trio.move_on_after(AGREE_WITHIN_S):
            while len(found) < len(self._urls) or len(set(found.values())) > 1:
                for number, url in enumerate(self._urls, start=1):
                    # The hash of everything that is held, as the member has it now.
                    told = await http_json(f"{url}/v3/maintenance/hash", {})
                    if told is not None:
                        found[f"member {number}"] = (int(told["header"]["revision"]), int(told["hash"]))
                await trio.sleep(POLL_S)
        if len({revision for revision, _ in found.values()}) != 1 or len(found) < len(self._urls):
            return [f"the members' revisions and hashes differ: {found}"]
        writes = {name: revision - REVISION_AT_FIRST for name, (revision, _) in found.items()}
        return differing(writes, range(answered, answered + unanswered + 1))


class Etcd(Peer):
    """The reference."""

    name = "etcd"
    generator = "h2load (gRPC)"

    def missing(self) -> str | None:
        """Server and load generator are in two packages."""
        return lacking(programs={"etcd": "etcd-server", "h2load": "nghttp2-client"})

    def version(self) -> str:
        """Of the server."""
        found = re.search(r"etcd Version: (\S+)", output_of(program("etcd") or "etcd", "--version"))
        return found.group(1) if found else "unknown"

    def durability(self) -> tuple[str, str]:
        """As etcd's own documentation has it."""
        return SYNCED_MAJORITY

    @asynccontextmanager
    async def running(self, load: Load, directory: Path) -> AsyncIterator[Running]:
        """Three members with the defaults; a fresh cluster."""
        ports = free_ports(2 * SERVERS)
        clients = [f"http://127.0.0.1:{port}" for port in ports[:SERVERS]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[SERVERS:]]
        cluster = ",".join(f"member-{number}={url}" for number, url in enumerate(peers, start=1))
        async with programs() as servers:
            for number, (client, peer) in enumerate(zip(clients, peers, strict=True), start=1):
                await start(
                    servers,
                    f"etcd member {number}",
                    [
                        program("etcd") or "etcd", f"--name=member-{number}", "--data-dir=data",
                        f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                        f"--initial-cluster={cluster}", "--initial-cluster-state=new",
                    ],
                    directory / f"member-{number}",
                    {},
                )  # fmt: skip
            for server, url in zip(servers, clients, strict=True):
                await server.until(lambda url=url: _healthy(url))  # type: ignore[misc]
            yield _Members(load, directory, servers, clients)


async def _healthy(url: str) -> bool:
    """Does it know a leader?"""
    told = await http_json(f"{url}/health")
    return told is not None and told.get("health") == "true"
