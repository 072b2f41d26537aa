"""What a server is told before it starts: a typed `Config`, and a TOML file with the same names.

Knows the limits' dataclasses and nothing of what they limit.

Invariants
- A `Config` that exists is valid: each value was checked when it was made, also in relation to the others.
- The file's keys are the fields' names, and nothing else: a new field or limit needs no code to be read.
- Every error is a `ConfigError` that names the key (dotted, as in the file), the value, and what is allowed.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from craft.config import toml
from craft.config.addresses import Address, parse_address
from craft.config.checks import Relation, check_ranges, check_types
from craft.config.clocks import ClockConfig, check_clock
from craft.errors import ConfigError
from craft.limits import ADDRESS_CHARS_MAX, KIB, MIB, ClientLimits, EngineLimits, TailLimits, TransportLimits
from craft.types import GROUPS_MAX, SERVER_ID_MAX, ServerId

__all__ = [
    "ANY_CLUSTER",
    "RELATIONS",
    "SERVERS_MAX",
    "Address",
    "ClockConfig",
    "Config",
    "TlsConfig",
    "parse_address",
]

SERVERS_MAX = 64
"""Servers of one cluster. Every leader sends to all of them; more is a mistake."""

GROUPS_MIN_DEFAULT = 3
"""Groups of a small cluster, unless told otherwise: so that it can grow and still spread its leaders."""

CLUSTER_NAME_MAX = 64
"""Characters of a cluster's name."""

ANY_CLUSTER = "*"
"""What a client says that takes any cluster; so none has this name."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificates (PEM). Both ends of a connection between servers show theirs and check the other's."""

    cert_file: Path
    """This server's certificate and what leads to the authority. Good for client and for server use."""

    key_file: Path
    """Its private key, unencrypted: protect it by the file's permissions."""

    ca_file: Path
    """Who may sign the others' certificates: an authority of this cluster, never a public one."""

    client_ca_file: Path | None = None
    """Who may sign clients' certificates, for `clients.tls`. Without it: `ca_file`, and then whoever has a
    client's certificate could pose as a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One server's configuration. Checked when it is made: raises ConfigError.

    Relative paths in a file are relative to the file's directory; in Python, to the working directory.
    """

    cluster: str
    """The cluster's name. Servers of another cluster are refused in the handshake."""

    server_id: int
    """Which of `servers` this one is. It belongs to the data directory for ever."""

    servers: dict[int, str] = field(default_factory=dict)
    """The cluster's first servers: each one's id, and the `host:port` at which the others reach it. The same
    on all of them. It says who votes at the very first start; from then on the cluster itself knows."""

    groups: int | None = None
    """Raft groups, each with a leader of its own; the same on all servers, and fixed when the cluster is
    created. Without it: as many as servers, and at least 3."""

    data_dir: Path | None = None
    """This server's directory. Without it everything is kept in memory: *nothing survives this process*, and
    a server that comes back without its memory can lose answered writes. For tests."""

    listen: str | None = None
    """Where to listen for the other servers. Without it: this server's own address in `servers`."""

    client_listen: str | None = None
    """Where to listen for clients and `craft status`; port 0 takes any free one. Without it: nowhere."""

    client_advertise: str | None = None
    """Where clients are told to reach this server, if that is another address: behind NAT, or where
    `client_listen` is `0.0.0.0`. Without it: `client_listen`, where it names an address and a port."""

    join: list[str] = field(default_factory=list)
    """Instead of `servers`, for a server that comes later: `client_listen` addresses of servers to ask who
    the members are. It takes part as soon as `craft members add` has named it. Asked at every start: all
    whom a server knew may have been replaced while it was away."""

    insecure_listen: bool = False
    """Listen beyond loopback without TLS: whoever reaches the port can write. For closed networks only."""

    apply_in_thread: bool = False
    """Call the state machine in a worker thread: for one whose `apply_batch` computes long or blocks."""

    close_timeout_ms: int = 5000
    """How long a graceful stop waits for its groups to be taken over and for calls to be answered."""

    disk_free_bytes_min: int = 256 * MIB
    """Below so much free space beside `data_dir` this server takes no new commands (`Overloaded`), while
    the cluster can still take snapshots and compact, before a full disk ends every server. At least what a
    snapshot of your state takes, and the log once more, for compactions rewrite what is kept; 1: never.
    """

    tls: TlsConfig | None = None
    """Certificates, for connections between servers and for `clients.tls`. Without it: plain TCP, on loopback
    only."""

    clock: ClockConfig = field(default_factory=ClockConfig)
    """Where this server's time comes from, and how good the clocks are."""

    engine: EngineLimits = field(default_factory=EngineLimits)
    """Bounds of the protocol. The same on all servers."""

    transport: TransportLimits = field(default_factory=TransportLimits)
    """Bounds of the connections between servers. The same on all servers."""

    clients: ClientLimits = field(default_factory=ClientLimits)
    """The listener for clients: TLS, and bounds."""

    tail: TailLimits = field(default_factory=TailLimits)
    """The tail of the merged log, for those who subscribe."""

    def __post_init__(self) -> None:
        """Check at once: an invalid Config never exists."""
        self.check()

    @property
    def group_count(self) -> int:
        """Raft groups, with the default."""
        return self.groups if self.groups is not None else max(GROUPS_MIN_DEFAULT, len(self.servers))

    @property
    def advertised(self) -> dict[ServerId, Address]:
        """Where the servers reach each other, by id in rising order."""
        return {peer: parse_address(f"servers.{peer}", self.servers[peer]) for peer in sorted(self.servers)}

    @property
    def listen_address(self) -> Address:
        """Where to listen for the other servers."""
        if self.listen is None:
            return self.advertised[self.server_id]
        return parse_address("listen", self.listen)

    @property
    def client_listen_address(self) -> Address | None:
        """Where to listen for clients, or None: nowhere. Port 0 stands for any free one."""
        if self.client_listen is None:
            return None
        return parse_address("client_listen", self.client_listen, any_port=True)

    @property
    def client_address(self) -> Address | None:
        """Where clients are told to reach this server; None: they are not told."""
        if self.client_advertise is not None:
            return parse_address("client_advertise", self.client_advertise)
        address = self.client_listen_address
        return None if address is None or address.port == 0 or address.everywhere else address

    def check(self) -> None:
        """Raise ConfigError for the first value that is wrong by itself or in relation to another."""
        check_types(self)
        check_ranges(self)
        _check_cluster(self)
        _check_own_addresses(self)
        _check_doors(self)
        _check_advertised(self)
        check_clock(self.clock)
        for relation in RELATIONS:
            relation.check(self)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a TOML file. Raises ConfigError, whose message opens with the file's name."""
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read: {error}") from error
        try:
            return cls.from_toml(text, directory=file.parent)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error

    @classmethod
    def from_toml(cls, text: str, *, directory: Path = Path()) -> Self:
        """Read TOML text; relative paths in it are relative to `directory`. Raises ConfigError."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"not valid TOML: {error}") from error
        toml.refuse_unknown_keys(cls, table)
        if "cluster" in table and not {"servers", "join"} & table.keys():
            raise ConfigError("servers: is missing; allowed: a table, or join in its place")
        return cls(**toml.arguments(cls, table, directory))

    def to_toml(self) -> str:
        """A file's text from which `from_toml` makes an equal Config; defaults are left out."""
        return toml.dump(self)


# -- what belongs together -------------------------------------------------------------------------


def _check_cluster(config: Config) -> None:
    """The cluster has a name, servers with ids, this one among them, and groups."""
    name = config.cluster
    if not 1 <= len(name) <= CLUSTER_NAME_MAX or not name.isprintable():
        raise ConfigError(
            f"cluster: {name!r} is not allowed; allowed: 1 to {CLUSTER_NAME_MAX} printable characters"
        )
    if name == ANY_CLUSTER:
        raise ConfigError(f"cluster: {name!r} is not allowed; allowed: any other, for it means any cluster")
    if config.join and not config.servers:
        _check_joins(config)
        return
    if not 1 <= len(config.servers) <= SERVERS_MAX:
        raise ConfigError(f"servers: has {len(config.servers)} servers; allowed: 1 to {SERVERS_MAX}")
    for peer in config.servers:
        if not 1 <= peer <= SERVER_ID_MAX:
            raise ConfigError(f"servers.{peer}: {peer} is not a server id; allowed: 1 to {SERVER_ID_MAX}")
    if config.server_id not in config.servers:
        known = ", ".join(str(peer) for peer in sorted(config.servers))
        raise ConfigError(f"server_id: {config.server_id} is not allowed; allowed: one of servers ({known})")
    if not 1 <= config.group_count <= GROUPS_MAX:
        raise ConfigError(f"groups: {config.groups} is not allowed; allowed: 1 to {GROUPS_MAX}")


def _check_joins(config: Config) -> None:
    """Who comes later says where it listens, and asks somewhere."""
    if config.listen is None:
        raise ConfigError("listen: is missing; a server that joins has no address in servers")
    if not 1 <= config.server_id <= SERVER_ID_MAX:
        raise ConfigError(f"server_id: {config.server_id} is not allowed; allowed: 1 to {SERVER_ID_MAX}")
    for place, address in enumerate(config.join):
        parse_address(f"join[{place}]", address)


def _check_own_addresses(config: Config) -> None:
    """Every server has an address of its own."""
    owners: dict[Address, ServerId] = {}
    for peer, address in config.advertised.items():
        owner = owners.setdefault(address, peer)
        if owner != peer:
            raise ConfigError(
                f"servers.{peer}: '{address}' is server {owner}'s address too; allowed: one of its own"
            )


def _check_doors(config: Config) -> None:
    """No door stands open by accident, and none is thought closed that is not."""
    if config.clients.tls and config.tls is None:
        raise ConfigError("clients.tls: true is not allowed without [tls]; allowed: both, or false")
    if config.tls is not None and config.tls.client_ca_file is not None and not config.clients.tls:
        raise ConfigError(
            f"tls.client_ca_file: '{config.tls.client_ca_file}' is not allowed while clients speak plain TCP;"
            " allowed: with clients.tls = true"
        )
    doors = {"listen": (config.listen_address, config.tls is not None, "tls")}
    if config.client_listen_address is not None:
        doors["client_listen"] = (config.client_listen_address, config.clients.tls, "clients.tls")
    for key, (address, closed, tls) in doors.items():
        if not (address.loopback or closed or config.insecure_listen):
            raise ConfigError(
                f"{key}: '{address}' is open beyond this machine, for anyone to write; allowed: {tls}, "
                "a loopback address, or insecure_listen = true in a closed network"
            )


def _check_advertised(config: Config) -> None:
    """Clients are told an address that can be connected to, and that fits in a handshake."""
    address = config.client_address
    if config.client_advertise is not None and config.client_listen is None:
        raise ConfigError(
            f"client_advertise: '{config.client_advertise}' is not allowed without client_listen;"
            " allowed: both, or none"
        )
    if address is None:
        return
    text = str(address)
    if address.everywhere or len(text) > ADDRESS_CHARS_MAX or not text.isprintable():
        key = "client_listen" if config.client_advertise is None else "client_advertise"
        raise ConfigError(
            f"{key}: {text!r} is no address to tell clients; allowed: one that they can connect to, of at"
            f" most {ADDRESS_CHARS_MAX} printable characters"
        )


FRAME_ROOM_BYTES = 64 * KIB
"""What a frame or request carries beside commands: heads of messages, and heartbeats of all groups."""

RELATIONS = (
    Relation(
        ("engine.heartbeat_interval_ms",),
        "engine.election_timeout_ms_min",
        "so that two lost heartbeats start no election",
        factor=3,
    ),
    Relation(
        ("clock.error_ms_max",),
        "engine.clock_offset_ms_max",
        "so that no honest clock is clamped: two may err both ways",
        factor=2,
    ),
    Relation(
        ("engine.append_bytes_max",),
        "engine.inflight_bytes_max",
        "so that the window holds a whole append",
    ),
    Relation(
        ("engine.entry_bytes_max",),
        "engine.proposals_bytes_max",
        "so that the largest call can be taken at all",
    ),
    Relation(
        ("engine.entry_bytes_max",),
        "engine.forwarded_bytes_max",
        "so that the largest call can be forwarded at all",
    ),
    Relation(
        ("engine.entry_bytes_max",),
        "engine.unmerged_bytes_max",
        "so that one full entry that waits for another group stops no leader",
    ),
    Relation(
        ("engine.append_bytes_max", "engine.entry_bytes_max"),
        "transport.frame_bytes_max",
        "so that the largest message fits in a frame",
        margin=FRAME_ROOM_BYTES,
    ),
    Relation(
        ("engine.load_bytes_max",),
        "transport.frame_bytes_max",
        "so that what is read back for a peer fits in a frame",
        margin=FRAME_ROOM_BYTES,
    ),
    Relation(
        ("engine.snapshot_chunk_bytes",),
        "transport.frame_bytes_max",
        "so that a piece of a snapshot fits in a frame",
        margin=FRAME_ROOM_BYTES,
    ),
    Relation(
        ("transport.frame_bytes_max",),
        "transport.send_queue_bytes_max",
        "so that one frame alone does not drop the link",
    ),
    Relation(
        ("transport.frame_bytes_max",),
        "transport.receive_queue_bytes_max",
        "so that one frame alone does not stop the readers",
    ),
    Relation(
        ("engine.apply_bytes_max",),
        "tail.memory_bytes_max",
        "so that what is applied in one turn drops no subscriber that keeps up",
        factor=4,
    ),
    Relation(
        ("engine.entry_bytes_max",),
        "clients.request_bytes_max",
        "so that a client may send what a call inside a server may",
        margin=FRAME_ROOM_BYTES,
    ),
)
"""What must hold between two limits, beside the pairs that their names tell (`x_min`, `x`, `x_max`)."""
