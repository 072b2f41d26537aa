"""`craft certs`: certificates that servers and clients can be started with."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
from pathlib import Path
from typing import Self

import pytest
from cryptography.x509 import load_pem_x509_certificate

from craft.cli import main
from craft.config import Config
from craft.transport.tcp.tls import connecting_context, listening_context


def meet(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """A handshake in memory; raises what one of the two has to say against it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    done = set[ssl.SSLObject]()
    for _ in range(10):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done.add(side)
    assert done == {ours, theirs}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Two servers' certificates and a client's."""
    assert main(["certs", "--dir", str(tmp_path / "certs"), "server-1", "server-2"]) == 0
    return tmp_path / "certs"


def pair(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.pem", directory / f"{name}-key.pem"


def test_servers_and_clients_come_to_terms(made: Path) -> None:
    """Servers with each other by their authority; clients, by theirs, with servers."""
    servers, clients = made / "servers-ca.pem", made / "clients-ca.pem"
    listener = listening_context(pair(made, "server-1"), servers, clients)
    for host in ("localhost", "127.0.0.1", "::1"):
        meet(listener, connecting_context(pair(made, "server-2"), servers), host)
        meet(listener, connecting_context(pair(made, "client"), servers), host)


def test_a_client_cannot_pose_as_a_server(made: Path) -> None:
    """Its certificate is of another authority, and good for clients only."""
    listener = listening_context(pair(made, "server-1"), made / "servers-ca.pem")
    with pytest.raises(ssl.SSLError):
        meet(listener, connecting_context(pair(made, "client"), made / "servers-ca.pem"), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        other = connecting_context(pair(made, "server-2"), made / "servers-ca.pem")
        meet(listener, other, "elsewhere.example.org")


def test_the_configuration_that_the_help_shows_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    """It is copied."""
    with pytest.raises(SystemExit):
        main(["certs", "--help"])
    shown = capsys.readouterr().out.split("in a server's configuration:\n")[1].split("\n\n")[0]
    config = Config.from_toml('cluster = "bank"\nserver_id = 1\nservers = {1 = "10.0.0.1:7001"}\n' + shown)
    assert config.clients.tls


def test_keys_are_for_their_owner_only(made: Path) -> None:
    """Whoever reads one can be that server."""
    keys = sorted(made.glob("*-key.pem"))
    assert len(keys) == 5
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)


def test_a_server_is_added_later(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The authorities stay, and so does what they have signed."""
    before = {file: file.read_bytes() for file in made.iterdir()}
    capsys.readouterr()
    arguments = ["certs", "--dir", str(made), "--host", "10.0.0.4", "--host", "db4", "server-1", "server-4"]
    assert main(arguments) == 0
    assert {file: file.read_bytes() for file in before} == before
    said = capsys.readouterr().out
    assert "server-1.pem is there already" in said
    assert "server-4.pem, for 10.0.0.4, db4" in said
    listener = listening_context(pair(made, "server-4"), made / "servers-ca.pem")
    meet(listener, connecting_context(pair(made, "server-1"), made / "servers-ca.pem"), "db4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a/b"], "'a/b' is not allowed; allowed: 1 to 64 letters"),
        (["client"], "is the name of another file"),
        (["server-1", "server-1-key"], "'server-1-key' is not allowed; it is the name of another file"),
        (["x", "--days", "0"], "'0' is not allowed; allowed: 1 to 3650"),
        (["x", "--host", "a:1"], "'a:1' is not allowed; allowed: a DNS name or an IP address"),
        (["x", "--host", "[10.0.0.1]"], "'[10.0.0.1]' is not allowed; allowed: a DNS name or an IP address"),
        (["x", "--host", "10.0.0.256"], "'10.0.0.256' is not allowed; allowed: a DNS name or an IP address"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """And nothing is written."""
    with pytest.raises(SystemExit):
        main(["certs", "--dir", str(tmp_path / "certs"), *arguments])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "certs").exists()


def test_files_that_are_something_else_are_refused(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written over."""
    (made / "servers-ca.pem").write_text("something else")
    assert main(["certs", "--dir", str(made), "server-3"]) == 1
    assert "servers-ca.pem" in capsys.readouterr().err
    assert not (made / "server-3.pem").exists()


@pytest.mark.parametrize(
    ("gone", "code"), [("servers-ca-key", 1), ("servers-ca", 1), ("server-1-key", 0), ("client", 0)]
)
def test_half_of_a_pair_is_left_alone(
    made: Path, gone: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other half may be kept elsewhere; and with a new authority all servers would be strangers."""
    (made / f"{gone}.pem").unlink()
    before = {file: file.read_bytes() for file in made.iterdir()}
    assert main(["certs", "--dir", str(made), "server-1"]) == code
    assert f"{made / gone}.pem is not" in "".join(capsys.readouterr())
    assert {file: file.read_bytes() for file in made.iterdir()} == before


def test_a_key_of_another_authority_signs_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody would believe what it signs."""
    (made / "servers-ca-key.pem").write_bytes((made / "clients-ca-key.pem").read_bytes())
    assert main(["certs", "--dir", str(made), "server-3"]) == 1
    assert "do not belong together" in capsys.readouterr().err
    assert not (made / "server-3.pem").exists()


class Later(dt.datetime):
    """Forty days from now."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        return super().now(tz) + dt.timedelta(days=40)


def test_an_authority_that_has_expired_signs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would believe what it signs."""
    arguments = ["certs", "--dir", str(tmp_path), "--days", "30"]
    assert main([*arguments, "server-1"]) == 0
    monkeypatch.setattr(dt, "datetime", Later)
    assert main([*arguments, "server-2"]) == 1
    assert "servers-ca.pem has expired" in capsys.readouterr().err
    assert not (tmp_path / "server-2.pem").exists()


def test_a_certificate_lives_no_longer_than_its_authority(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that has expired is told from one that can be used."""
    assert main(["certs", "--dir", str(tmp_path), "--days", "50", "server-1"]) == 0
    ends = [until(tmp_path, name) for name in ("servers-ca", "server-1")]
    assert ends[1] <= ends[0]
    assert main(["certs", "--dir", str(tmp_path), "--days", "3650", "server-2"]) == 0
    assert until(tmp_path, "server-2") == ends[0]

    assert main(["certs", "--dir", str(tmp_path), "--days", "30", "server-3"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(dt, "datetime", Later)
    assert main(["certs", "--dir", str(tmp_path), "server-2", "server-3"]) == 0
    said = capsys.readouterr().out
    assert "server-2.pem is there already" in said
    assert "server-3.pem is there, and has expired" in said


def until(directory: Path, name: str) -> dt.datetime:
    """When a certificate ends."""
    return load_pem_x509_certificate((directory / f"{name}.pem").read_bytes()).not_valid_after_utc
