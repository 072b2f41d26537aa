"""Configuration: what is right is read as it stands, what is wrong is named with what is allowed."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.config import RELATIONS, SERVERS_MAX, Address, ClockConfig, Config, TlsConfig, parse_address
from craft.config.checks import limit_pairs, unit_range, value_at
from craft.config.toml import known_keys
from craft.errors import ConfigError
from craft.limits import ClientLimits, EngineLimits, TransportLimits

THREE = {1: "127.0.0.1:7001", 2: "127.0.0.1:7002", 3: "[::1]:7003"}
LEAST = 'cluster = "orders"\nserver_id = 1\n[servers]\n1 = "127.0.0.1:7001"\n'


def make(**changes: Any) -> Config:
    return Config(**{"cluster": "orders", "server_id": 1, "servers": THREE, **changes})


# -- what is right ---------------------------------------------------------------------------------


def test_three_values_are_enough() -> None:
    """A cluster's name, an id and the servers: everything else has a default."""
    config = make()
    assert config.group_count == 3
    assert config.data_dir is None
    assert config.listen_address == Address("127.0.0.1", 7001)
    assert config.client_listen_address is None
    assert config.advertised == {
        1: Address("127.0.0.1", 7001),
        2: Address("127.0.0.1", 7002),
        3: Address("::1", 7003),
    }


def test_groups_follow_the_servers_and_are_at_least_three() -> None:
    """One server has three groups, five have five, unless told otherwise."""
    assert make(servers={1: "a:1"}, listen="localhost:1").group_count == 3
    five = {peer: f"localhost:{7000 + peer}" for peer in range(1, 6)}
    assert make(servers=five).group_count == 5
    assert make(servers=five, groups=1).group_count == 1


def test_a_file_has_the_names_of_the_fields(tmp_path: Path) -> None:
    """Every kind of value is read under its own name; relative paths start at the file."""
    file = tmp_path / "server.toml"
    file.write_text(
        """
        cluster = "orders"
        server_id = 2
        groups = 64
        data_dir = "data"
        listen = "0.0.0.0:7001"
        client_listen = "localhost:0"
        apply_in_thread = true
        [servers]
        1 = "one.example:7001"
        2 = "two.example:7001"
        [tls]
        cert_file = "two.pem"
        key_file = "/etc/craft/two.key"
        ca_file = "ca.pem"
        [engine]
        heartbeat_interval_ms = 50
        [transport]
        connect_timeout_ms = 500
        [clients]
        connections_max = 9
        """
    )
    assert Config.load(file) == Config(
        cluster="orders",
        server_id=2,
        groups=64,
        data_dir=tmp_path / "data",
        listen="0.0.0.0:7001",
        client_listen="localhost:0",
        apply_in_thread=True,
        servers={1: "one.example:7001", 2: "two.example:7001"},
        tls=TlsConfig(tmp_path / "two.pem", Path("/etc/craft/two.key"), tmp_path / "ca.pem"),
        engine=EngineLimits(heartbeat_interval_ms=50),
        transport=TransportLimits(connect_timeout_ms=500),
        clients=ClientLimits(connections_max=9),
    )


def test_defaults_are_left_out_of_a_written_file() -> None:
    """A written file says what was chosen, and nothing else."""
    assert make(servers={1: "127.0.0.1:7001"}).to_toml() == LEAST.replace("[servers]", "\n[servers]")


@given(
    cluster=st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=64),
    directory=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    groups=st.none() | st.integers(1, 4096),
    heartbeat=st.integers(1, 133),
    threaded=st.booleans(),
)
def test_what_is_written_reads_back_equal(
    cluster: str, directory: str, groups: int | None, heartbeat: int, threaded: bool
) -> None:
    """Whatever characters a name or path has, a file holds them."""
    config = make(
        cluster=cluster,
        data_dir=Path("/") / directory,
        groups=groups,
        apply_in_thread=threaded,
        tls=TlsConfig(Path("/a"), Path('/b "c"'), Path("/d\\e")),
        engine=EngineLimits(heartbeat_interval_ms=heartbeat),
    )
    assert Config.from_toml(config.to_toml()) == config


# -- what is wrong by itself -----------------------------------------------------------------------

WRONG_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"cluster": ""}, "cluster: '' is not allowed; allowed: 1 to 64 printable characters"),
    ({"cluster": "a\nb"}, r"cluster: 'a\\nb' is not allowed"),
    ({"cluster": "*"}, r"cluster: '\*' is not allowed; allowed: any other, for it means any cluster"),
    ({"cluster": 7}, "cluster: 7 is not allowed; allowed: a string"),
    ({"server_id": 4}, r"server_id: 4 is not allowed; allowed: one of servers \(1, 2, 3\)"),
    ({"server_id": True}, "server_id: True is not allowed; allowed: a whole number"),
    ({"servers": {}}, f"servers: has 0 servers; allowed: 1 to {SERVERS_MAX}"),
    ({"servers": {0: "a:1"}}, "servers.0: 0 is not a server id; allowed: 1 to 4294967295"),
    ({"servers": {"1": "a:1"}}, "servers.1: '1' is not allowed; allowed: a whole number"),
    ({"servers": {1: 7001}}, "servers.1: 7001 is not allowed; allowed: a string"),
    ({"servers": {1: "localhost"}}, "servers.1: 'localhost' is not an address; allowed: \"host:port\""),
    ({"servers": {**THREE, 4: THREE[2]}}, "servers.4: '127.0.0.1:7002' is server 2's address too"),
    ({"groups": 0}, "groups: 0 is not allowed; allowed: 1 to 4096"),
    ({"groups": 4097}, "groups: 4097 is not allowed; allowed: 1 to 4096"),
    ({"groups": 2.5}, "groups: 2.5 is not allowed; allowed: a whole number"),
    ({"data_dir": "data"}, "data_dir: 'data' is not allowed; allowed: a path"),
    ({"listen": "localhost:0"}, "listen: 'localhost:0' is not an address; .* port 1 to 65535"),
    ({"client_listen": "localhost:65536"}, "client_listen: .* port 0 to 65535"),
    ({"apply_in_thread": 1}, "apply_in_thread: 1 is not allowed; allowed: true or false"),
    ({"tls": "cert.pem"}, "tls: 'cert.pem' is not allowed; allowed: a table of cert_file, key_file, ca_file"),
    ({"engine": EngineLimits(read_retry_ms=0)}, "engine.read_retry_ms: 0 is not allowed; allowed: 1 to"),
    ({"engine": EngineLimits(load_bytes_max=-1)}, "engine.load_bytes_max: -1 is not allowed; allowed: 1 to"),
    (
        {"clients": ClientLimits(connections_max=0)},
        "clients.connections_max: 0 is not allowed; allowed: 1 to",
    ),
]


@pytest.mark.parametrize(("changes", "complaint"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_is_allowed(changes: dict[str, Any], complaint: str) -> None:
    """Key, value and allowed values, in one line."""
    with pytest.raises(ConfigError, match=complaint):
        make(**changes)


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a", "a:b", "a b:1", "a:-1", "::1:7001", "[::1]", "[nine]:1", "[]:1", "a:٣", "a:1\n"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """An address has a host and a port; an IPv6 address has brackets."""
    with pytest.raises(ConfigError, match="is not an address"):
        parse_address("listen", text)


def test_addresses_are_written_as_they_are_read() -> None:
    """Brackets belong to the text, not to the host."""
    for text in ("localhost:1", "127.0.0.1:65535", "[::1]:7001", "[fe80::1%eth0]:7001", "a-b.example:80"):
        assert str(parse_address("listen", text)) == text


def test_clients_are_told_an_address_that_they_can_connect_to() -> None:
    """The one that is listened on, or another one; none where it stands for all of them, or for any port."""
    assert make().client_address is None
    assert make(client_listen="localhost:8001").client_address == Address("localhost", 8001)
    assert make(client_listen="localhost:0").client_address is None
    assert make(client_listen="0.0.0.0:8001", insecure_listen=True).client_address is None
    behind = make(client_listen="localhost:0", client_advertise="a.example:80")
    assert behind.client_address == Address("a.example", 80)
    for address in ("0.0.0.0:1", "[::]:1", "a" * 261 + ":1", "a\u200b:1"):
        with pytest.raises(ConfigError, match="client_advertise: .* is no address to tell clients; allowed"):
            make(client_listen="localhost:0", client_advertise=address)
    with pytest.raises(ConfigError, match="client_advertise: 'a:1' is not allowed without client_listen"):
        make(client_advertise="a:1")
    with pytest.raises(ConfigError, match="client_listen: .* is no address to tell clients"):
        make(client_listen="a" * 261 + ":1", insecure_listen=True)


# -- doors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0:7001", "[::]:7001", "10.0.0.1:7001", "one.example:7001"])
def test_no_server_listens_beyond_loopback_without_tls(address: str) -> None:
    """Beyond this machine servers want certificates, or an operator who says that none are needed."""
    with pytest.raises(ConfigError, match="listen: .* is open beyond this machine.*allowed: tls, a loopback"):
        make(listen=address)
    with pytest.raises(ConfigError, match="listen: .* is open beyond this machine"):
        make(servers={1: address})
    make(listen=address, insecure_listen=True)
    make(listen=address, tls=TlsConfig(Path("a"), Path("b"), Path("c")))


def test_certificates_between_servers_do_not_open_the_clients_door() -> None:
    """Without `clients.tls` their listener stays on loopback unless told otherwise."""
    tls = TlsConfig(Path("a"), Path("b"), Path("c"))
    with pytest.raises(
        ConfigError, match="client_listen: '0.0.0.0:7101' is open beyond .*allowed: clients.tls, a loopback"
    ):
        make(client_listen="0.0.0.0:7101", tls=tls)
    make(client_listen="0.0.0.0:7101", tls=tls, insecure_listen=True)
    make(client_listen="0.0.0.0:7101", tls=tls, clients=ClientLimits(tls=True))
    make(client_listen="[::1]:7101")


def test_tls_for_clients_wants_certificates_and_an_authority_for_them_wants_tls() -> None:
    """A door that is thought closed must be."""
    with pytest.raises(ConfigError, match=r"clients.tls: true is not allowed without \[tls\]; allowed: both"):
        make(clients=ClientLimits(tls=True))
    tls = TlsConfig(Path("a"), Path("b"), Path("c"), Path("d"))
    with pytest.raises(
        ConfigError, match="tls.client_ca_file: 'd' is not allowed while .*clients.tls = true"
    ):
        make(tls=tls)
    make(tls=tls, clients=ClientLimits(tls=True))


# -- relations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("relation", RELATIONS, ids=[relation.greater for relation in RELATIONS])
def test_each_relation_holds_by_default_and_refuses_its_breach(relation: Any) -> None:
    """At the bound is allowed, one below is refused, by the greater key's name and with the reason."""
    table, name = relation.greater.split(".")
    stated = make(clock=ClockConfig(error_ms_max=100))  # a bound that is not stated bounds nothing
    values = [value_at(stated, key) for key in relation.lesser]
    least = relation.factor * sum(value for value in values if value is not None) + relation.margin
    relation.check(stated)

    def with_value(value: int) -> Any:
        # The Config itself would complain of whichever relation comes first, so the tables stand alone here.
        parts = {name: getattr(stated, name) for name in ("clock", "engine", "transport", "clients", "tail")}
        parts[table] = replace(parts[table], **{name: value})
        return type("Parts", (), parts)

    relation.check(with_value(least))
    with pytest.raises(
        ConfigError, match=f"{relation.greater}: {least - 1} is not allowed; .*{relation.reason}"
    ):
        relation.check(with_value(least - 1))


def test_a_config_checks_its_relations() -> None:
    """The relations are part of being valid, and so are pairs of names."""
    with pytest.raises(
        ConfigError, match=r"engine.election_timeout_ms_min: 400 .*at least 450 \(3 \* engine"
    ):
        make(engine=EngineLimits(heartbeat_interval_ms=150, election_timeout_ms_min=400))
    with pytest.raises(
        ConfigError,
        match="election_timeout_ms_min: 900 .*at most engine.election_timeout_ms_max, which is 800",
    ):
        make(engine=EngineLimits(election_timeout_ms_min=900, election_timeout_ms_max=800))
    with pytest.raises(ConfigError, match="transport.reconnect_delay_ms_min: 2000 .*at most"):
        make(transport=TransportLimits(reconnect_delay_ms_min=2000))


def test_pairs_follow_from_names() -> None:
    """A new `x_max` bounds its `x` or `x_min` without a word here."""
    assert list(limit_pairs(["x_ms", "x_ms_max"])) == [("x_ms", "x_ms_max")]
    assert list(limit_pairs(["x_ms_min", "x_ms_max"])) == [("x_ms_min", "x_ms_max")]
    assert list(limit_pairs(["x_max", "y_ms_min"])) == []


@pytest.mark.parametrize("limits", [EngineLimits, TransportLimits, ClientLimits])
def test_every_limit_has_a_unit_and_so_a_range(limits: type) -> None:
    """A limit whose name ends in no unit would be checked by nobody; a choice has no range."""
    numbers = [item.name for item in fields(limits) if not isinstance(item.default, bool)]
    assert [name for name in numbers if unit_range(name) is None] == []


# -- the clock -------------------------------------------------------------------------------------


def test_a_clock_that_asks_time_servers() -> None:
    """Hosts with or without a port; a file can say it all."""
    clock = ClockConfig(
        source="ntp",
        ntp_servers=["ntp.example", "10.0.0.9:1123", "[::1]", "[::1]:1123"],
        ntp_poll_interval_ms=16_000,
        error_ms_max=50,
    )
    config = make(clock=clock)
    assert list(map(str, clock.ntp_addresses)) == [
        "ntp.example:123",
        "10.0.0.9:1123",
        "[::1]:123",
        "[::1]:1123",
    ]
    assert Config.from_toml(config.to_toml()) == config


WRONG_CLOCKS: list[tuple[dict[str, Any], str]] = [
    ({"source": "gps"}, r'clock.source: \'gps\' is not allowed; allowed: "system", "chrony", "ntp"'),
    ({"source": "ntp"}, "clock.ntp_servers: has 0 servers; allowed: 1 to 16"),
    ({"source": "ntp", "ntp_servers": ["a"] * 17}, "clock.ntp_servers: has 17 servers; allowed: 1 to 16"),
    (
        {"ntp_servers": ["a"]},
        r"clock.ntp_servers: has 1 servers, which nobody asks; allowed: none, or source",
    ),
    ({"source": "ntp", "ntp_servers": ["a b"]}, r"clock.ntp_servers\[0\]: 'a b:123' is not an address"),
    ({"source": "ntp", "ntp_servers": ["a:0"]}, r"clock.ntp_servers\[0\]: 'a:0' is not an address"),
    ({"source": "ntp", "ntp_servers": [1]}, r"clock.ntp_servers\[0\]: 1 is not allowed; allowed: a string"),
    (
        {"source": "ntp", "ntp_servers": "a"},
        "clock.ntp_servers: 'a' is not allowed; allowed: a list of strings",
    ),
    (
        {"source": "ntp", "ntp_servers": ["a", "b", "a:123"]},
        r"clock.ntp_servers\[2\]: 'a:123' is ntp_servers\[0\] again; allowed: each once",
    ),
    (
        {"ntp_poll_interval_ms": 1999},
        "clock.ntp_poll_interval_ms: 1999 is not allowed; allowed: at least 2000",
    ),
    ({"error_ms_max": 0}, "clock.error_ms_max: 0 is not allowed; allowed: 1 to"),
    ({"error_ms_max": 126}, r"clock_offset_ms_max: 250 .*at least 252 \(2 \* clock.error_ms_max\)"),
]


@pytest.mark.parametrize(("changes", "complaint"), WRONG_CLOCKS)
def test_a_wrong_clock_is_named_with_what_is_allowed(changes: dict[str, Any], complaint: str) -> None:
    """Key, value and what is allowed, for the clock too; its bound must leave honest clocks unclamped."""
    with pytest.raises(ConfigError, match=complaint):
        make(clock=ClockConfig(**changes))
    make(clock=ClockConfig(error_ms_max=125))


# -- files -----------------------------------------------------------------------------------------

WRONG_FILES = [
    ("server_id = x", "not valid TOML: .*line 1"),
    ("server_id = 1", "cluster: is missing; allowed: a string"),
    ('cluster = "orders"\nserver_id = 1', "servers: is missing; allowed: a table"),
    (LEAST + "01 = 'a:1'", "servers.01: '01' is not a server id"),
    (LEAST + "one = 'a:1'", "servers.one: 'one' is not a server id; allowed: 1 to 4294967295"),
    ("servers = 1\n" + LEAST.partition("[")[0], "servers: 1 is not allowed; allowed: a table"),
    ("data_dir = ''\n" + LEAST, "data_dir: '' is not allowed; allowed: a path"),
    ("data_dir = 1\n" + LEAST, "data_dir: 1 is not allowed; allowed: a path"),
    ("groups = 3.0\n" + LEAST, "groups: 3.0 is not allowed; allowed: a whole number"),
    ("engine = 3\n" + LEAST, "engine: 3 is not allowed; allowed: a table of heartbeat_interval_ms, "),
    (LEAST + "[tls]\ncert_file = 'a'", "tls.key_file: is missing; allowed: a path"),
    (LEAST + "[engine]\nread_retry_ms = '1'", "engine.read_retry_ms: '1' is not allowed; allowed: a whole"),
    ("sever_id = 1\n" + LEAST, "sever_id: unknown key; did you mean server_id?"),
    (
        LEAST + "[engine]\nhartbeat_interval_ms = 1",
        r"engine.hartbeat_interval_ms: unknown key; did you mean engine.heartbeat_interval_ms\?",
    ),
    (
        "heartbeat_interval_ms = 1\n" + LEAST,
        r"heartbeat_interval_ms: unknown key; did you mean engine.heartbeat_interval_ms\?",
    ),
    (LEAST + "[engin]\nx = 1", r"engin: unknown key; did you mean engine\?"),
    ("zzz = 1\n" + LEAST, "zzz: unknown key; allowed: cluster, server_id, servers, groups, data_dir, listen"),
    ("aaa = 1\nbbb = 2\n" + LEAST, "aaa: unknown key; .*; bbb: unknown key"),
]


@pytest.mark.parametrize(("text", "complaint"), WRONG_FILES)
def test_a_wrong_file_is_named_with_its_key(text: str, complaint: str, tmp_path: Path) -> None:
    """The message opens with the file, then names the key, the value and what is allowed or meant."""
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        Config.load(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a directory, a file of other bytes: an error of configuration, not a traceback."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("missing.toml", ".", "bytes"):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            Config.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_known_keys_are_all_fields() -> None:
    """The list that suggestions and the reference are made from has every field once."""
    keys = known_keys(Config)
    assert len(keys) == len(set(keys))
    assert {"cluster", "tls.cert_file", "engine.heartbeat_interval_ms", "clients.requests_max"} < set(keys)
