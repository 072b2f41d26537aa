"""What stands between the ports and the log: passwords, settings, history, channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

import craft
from examples.kv import cluster, settings
from examples.kv.history import RECORD_BYTES, History
from examples.kv.publishing import Hub
from examples.kv.replies import Reply
from examples.kv.snapshots import KINDS
from examples.kv.users import EVERYBODY, User, Users, hashed, parse_user

X = hashed("x", bytes(16))

# -- users -----------------------------------------------------------------------------------------


def test_a_password_is_verified_and_never_kept() -> None:
    """The same password is kept differently each time."""
    kept = hashed("secret")
    assert "secret" not in kept
    assert kept != hashed("secret")
    users = Users([User("alice", kept)])
    assert users.everybody is None
    found = users.verify("alice", b"secret")
    assert found is not None
    assert found.name == "alice"
    assert users.verify("alice", b"Secret") is None
    assert users.verify("bob", b"secret") is None


def test_where_there_are_no_users_everybody_may_do_everything() -> None:
    """Who reaches the port, that is."""
    assert Users([]).everybody is EVERYBODY
    assert EVERYBODY.unlimited


@pytest.mark.parametrize(
    ("name", "password", "rights", "complaint"),
    [
        ("", X, [], "name of a user"),
        ("a", "plain", [], "not hashed"),
        ("a", "scrypt:abc:def", [], "not hashed"),
        ("a", X.partition("=")[0], [], "not hashed"),
        ("a", X[:-4], [], "not hashed"),
        ("a", "scrypt:====:====", [], "not hashed"),
        ("a", X, ["own *"], "'own \\*' is no right; allowed are"),
        ("a", X, ["read a*b*"], "is no right"),
        ("a", X, ["write app:"], "a prefix ends with"),
    ],
)
def test_a_user_that_is_wrong_is_told_why(
    name: str, password: str, rights: list[str], complaint: str
) -> None:
    """With the value, and what is allowed."""
    with pytest.raises(ValueError, match=complaint):
        parse_user(name, password, rights)


# -- settings --------------------------------------------------------------------------------------


def write(directory: Path, text: str) -> Path:
    config = craft.Config(cluster="kv", server_id=1, servers={1: "127.0.0.1:7401"})
    (directory / "server.toml").write_text(config.to_toml(), encoding="utf-8")
    file = directory / "store.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_settings_are_read_with_crafts_own(tmp_path: Path) -> None:
    """From two files beside each other."""
    text = f"""
craft = "server.toml"
redis_listen = "127.0.0.1:6379"
history_bytes_max = 0
[users.alice]
password = "{hashed("secret")}"
rights = ["read *", "write app:*", "admin"]
[limits]
clients_max = 7
"""
    found = settings.load(write(tmp_path, text))
    assert found.craft.server_id == 1
    assert found.redis_listen == ("127.0.0.1", 6379)
    assert found.limits.clients_max == 7
    [alice] = found.users
    assert (alice.reads, alice.writes, alice.admin) == ((b"",), (b"app:",), True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "craft: is missing"),
        ('craft = "nowhere.toml"', "nowhere.toml: cannot be read"),
        ('craft = "server.toml"\nport = 1', "port: is not known; allowed: craft, history_bytes_max"),
        (
            'craft = "server.toml"\nredis_listen = "6379"',
            "redis_listen: '6379' is not allowed; allowed: host:port",
        ),
        ('craft = "server.toml"\nredis_listen = "[::]:6379"', "no users and tls"),
        ('craft = "server.toml"\nhistory_bytes_max = -1', "history_bytes_max: -1 is not allowed"),
        ('craft = "server.toml"\n[users.a]\nrights = 5', "users.a.rights: 5 is not allowed"),
        ('craft = "server.toml"\n[users.a]\npassword = "x"', "users.a: the password is not hashed"),
        ('craft = "server.toml"\n[limits]\nclients_max = 0', "limits.clients_max: 0 is not allowed"),
        ('craft = "server.toml"\n[limits]\nclients = 1', "limits.clients: is not known"),
        ('craft = "server.toml"\n[tls]\ncert_file = "a"\nkey_file = "b"', "tls: .*a and .*b cannot be used"),
        ('craft = "server.toml"\nstore = "rocks"\nstore_dir = ""', "store_dir: '' is not allowed"),
        ("craft = [", "cannot be read"),
    ],
)
def test_settings_that_are_wrong_are_told_why(tmp_path: Path, text: str, complaint: str) -> None:
    """With the file, the key, the value, and what is allowed."""
    with pytest.raises(craft.ConfigError, match=complaint) as caught:
        settings.load(write(tmp_path, text))
    assert "toml" in str(caught.value)


def test_the_store_is_never_applied_in_a_thread(tmp_path: Path) -> None:
    """A message to a subscriber that does not read would end the server."""
    file = write(tmp_path, 'craft = "server.toml"')
    config = craft.Config(
        cluster="kv", server_id=1, servers={1: "127.0.0.1:7401"}, data_dir=tmp_path, apply_in_thread=True
    )
    (tmp_path / "server.toml").write_text(config.to_toml(), encoding="utf-8")
    with pytest.raises(craft.ConfigError, match="store.toml: craft: apply_in_thread = true is not allowed"):
        settings.load(file)


def test_a_directory_keeps_its_cluster(tmp_path: Path) -> None:
    """What `up` has made is used again; another number of servers is refused."""
    files = cluster.prepare(tmp_path / "kv", servers=3, redis_port=6379)
    found = [settings.load(file) for file in files]
    assert [one.craft.server_id for one in found] == [1, 2, 3]
    assert [one.redis_listen.port for one in found if one.redis_listen] == [6379, 6380, 6381]
    before = files[0].stat()
    assert cluster.prepare(tmp_path / "kv", servers=3, redis_port=7000) == files
    assert files[0].stat() == before
    with pytest.raises(craft.ConfigError, match="--servers: 5 is not allowed, .* holds a cluster of 3"):
        cluster.prepare(tmp_path / "kv", servers=5, redis_port=6379)


@pytest.mark.parametrize("ports", [(62_536, None), (64_600, 50_000), (6379, 65_534)])
def test_ports_that_do_not_exist_are_told_before_anything_is_made(
    tmp_path: Path, ports: tuple[int, int | None]
) -> None:
    """What is made is used again; no other ports could be asked for then."""
    with pytest.raises(craft.ConfigError, match="^--redis-port.* is not allowed.*65535"):
        cluster.prepare(tmp_path / "kv", servers=3, redis_port=ports[0], http_port=ports[1])
    assert not (tmp_path / "kv").exists()
    cluster.prepare(tmp_path / "kv", servers=3, redis_port=62_533)  # the last that can be


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    """A server that starts at night must not wait at a prompt; under pytest asking would fail otherwise."""
    issued = trustme.CA().issue_cert("localhost")
    private = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "key").write_bytes(locked)
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    with pytest.raises(craft.ConfigError, match=r"key cannot be used: .*PEM lib.*; allowed: .* unencrypted"):
        settings.Certificates(tmp_path / "cert", tmp_path / "key").context()


# -- history ---------------------------------------------------------------------------------------


def test_history_says_what_a_key_held() -> None:
    """Until the time at which it held something else."""
    history = History(10_000)
    history.note(10, b"k", None, None)
    history.note(20, b"k", b"one", 15)
    history.note(20, b"other", b"x", None)
    history.note(30, b"k", b"two", None)
    found = [history.at(b"k", time) for time in (9, 10, 19, 20, 29, 30)]
    assert [one and one.value for one in found] == [None, b"one", b"one", b"two", b"two", None]
    assert found[0] is not None
    assert found[-1] is None


def test_history_is_bounded_and_says_from_when_on_it_is_complete() -> None:
    """The oldest goes first."""
    history = History(3 * (RECORD_BYTES + 2))
    for time in range(10):
        history.note(time, b"k", b"%d" % time, None)
    assert history.since == 6
    assert history.at(b"k", 6) == (b"7", None)
    history.clear(50)
    assert history.since == 50
    assert history.at(b"k", 60) is None


@pytest.mark.parametrize("kind", KINDS)
def test_history_counts_strings_of_every_kind(kind: type[bytes]) -> None:
    """What APPEND changes in place is another kind than what SET sets, and as large."""
    history = History(10_000)
    for time in range(10):
        history.note(time, b"k", kind(b"x" * 4_000), None)
    assert history.since == 7


# -- channels --------------------------------------------------------------------------------------


class Ear:
    def __init__(self) -> None:
        self.heard: list[Reply] = []

    def tell(self, message: Reply) -> None:
        self.heard.append(message)


def test_who_listens_is_told_once_for_each_way() -> None:
    """For the channel, and for each pattern that fits."""
    hub, one, two = Hub(), Ear(), Ear()
    hub.subscribe(one, b"news")
    hub.subscribe(one, b"news")
    hub.subscribe_pattern(one, b"n*")
    hub.subscribe_pattern(two, b"x*")
    assert hub.publish(b"news", b"hello") == 2
    assert one.heard == [
        {"push": (b"message", b"news", b"hello")},
        {"push": (b"pmessage", b"n*", b"news", b"hello")},
    ]
    assert two.heard == []
    hub.unsubscribe(one, b"news")
    hub.unsubscribe_pattern(one, b"n*")
    hub.unsubscribe_pattern(two, b"x*")
    hub.unsubscribe(two, b"never")
    assert hub.publish(b"news", b"hello") == 0
    assert not hub.channels
    assert not hub.patterns
