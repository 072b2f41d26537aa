"""`craft serve` as a process, and the commands that talk to it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from craft.cli.demo.cluster import free_ports
from tests.cli.running import BANK, craft, start
from tests.server.certificates import Authority

pytestmark = pytest.mark.system


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A user's directory: a module, and a configuration of a cluster of one."""
    (port,) = free_ports(1)
    (tmp_path / "bank.py").write_text(BANK, encoding="utf-8")
    (tmp_path / "server.toml").write_text(
        'cluster = "bank"\nserver_id = 1\ndata_dir = "data"\nclient_listen = "127.0.0.1:0"\n'
        f'[servers]\n1 = "127.0.0.1:{port}"\n',
        encoding="utf-8",
    )
    return tmp_path


@pytest.fixture
def server(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that is ready, and its clients' address."""
    with start("serve", "-c", "server.toml", "-m", "bank:Accounts", directory=directory) as process:
        try:
            yield process, _wait_ready(process)
        finally:
            process.kill()


def _wait_ready(process: subprocess.Popen[str]) -> str:
    """The clients' address, when the server says that it is ready."""
    assert process.stdout is not None
    address = None
    said = []
    for line in process.stdout:
        said.append(line)
        found = re.search(r"on (\S+) for clients", line)
        address = found[1] if found else address
        if line == "craft: server 1 is ready\n":
            assert address is not None
            return address
    pytest.fail("the server ended: " + "".join(said))


def test_a_server_takes_commands_and_stops_gracefully(
    directory: Path, server: tuple[subprocess.Popen[str], str]
) -> None:
    """Propose, read, look, SIGTERM: exit code 0; and what was written is there after a restart."""
    process, address = server
    assert craft("propose", address, "ann 5", "bob 7", "ann -2", directory=directory).stdout == "5\n7\n3\n"
    assert craft("read", address, "ann", directory=directory).stdout == "3\n"
    assert craft("read", address, "--json", "nobody", directory=directory).stdout == "null\n"

    table = craft("status", address, directory=directory)
    assert table.returncode == 0
    assert f"server 1  {address}  cluster bank  ready" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80
    status = json.loads(craft("status", address, "--json", directory=directory).stdout)[address]
    assert [group["leader"] for group in status["groups"]] == [1, 1, 1]

    process.send_signal(signal.SIGTERM)
    rest = process.communicate()[0]
    assert process.returncode == 0
    assert "craft: server 1 stops" in rest

    with start("serve", "-c", "server.toml", "-m", "bank:Accounts", directory=directory) as again:
        address = _wait_ready(again)
        assert craft("read", address, "ann", directory=directory).stdout == "3\n"
        again.send_signal(signal.SIGINT)
        again.communicate()
    assert again.returncode == 0


def test_with_tls_every_command_takes_certificates(directory: Path) -> None:
    """`status --config` uses the server's own; without any nobody is served, and told why."""
    authority = Authority(directory, "bank")
    tls = authority.server()
    (port,) = free_ports(1)
    file = directory / "server.toml"
    text = file.read_text(encoding="utf-8").replace("127.0.0.1:0", f"127.0.0.1:{port}")
    files = f'cert_file = "{tls.cert_file}"\nkey_file = "{tls.key_file}"\nca_file = "{tls.ca_file}"\n'
    file.write_text(f"{text}[tls]\n{files}[clients]\ntls = true\n", encoding="utf-8")
    cert_file, key_file = authority.issue("ann")
    ours = ("--ca", str(tls.ca_file), "--cert", str(cert_file), "--key", str(key_file))
    with start("serve", "-c", "server.toml", "-m", "bank:Accounts", directory=directory) as process:
        try:
            address = _wait_ready(process)
            assert craft("propose", address, *ours, "ann 5", directory=directory).stdout == "5\n"
            assert craft("read", address, *ours, "ann", directory=directory).stdout == "5\n"
            asked = craft("status", "--config", "server.toml", directory=directory)
            assert "cluster bank  ready" in asked.stdout and asked.returncode == 0
            assert "cluster bank  ready" in craft("status", address, *ours, directory=directory).stdout
            plain = craft("propose", address, "ann 5", directory=directory)
            assert plain.returncode == 1 and "this address speaks TLS" in plain.stderr
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_starts_is_stopped_by_the_first_signal(directory: Path, number: signal.Signals) -> None:
    """It may ask for ever whom to join; there is nothing to hand over."""
    nobody, own = free_ports(2)
    (directory / "server.toml").write_text(
        f'cluster = "bank"\nserver_id = 4\njoin = ["127.0.0.1:{nobody}"]\nlisten = "127.0.0.1:{own}"\n',
        encoding="utf-8",
    )
    with start("serve", "-c", "server.toml", "-m", "bank:Accounts", directory=directory) as process:
        try:
            assert process.stdout is not None
            while "cannot join" not in (line := process.stdout.readline()):
                assert line, "it ended before it asked anybody"
            process.send_signal(number)
            process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()


def test_a_second_server_on_the_same_directory_is_refused(
    directory: Path, server: tuple[subprocess.Popen[str], str]
) -> None:
    """One line, exit code 1, and the first goes on."""
    _, address = server
    second = craft("serve", "-c", "server.toml", "-m", "bank:Accounts", directory=directory)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith("craft: error: ")
    assert "Traceback" not in second.stderr
    assert craft("propose", address, "ann 1", directory=directory).stdout == "1\n"


def test_a_port_in_use_ends_the_server_with_one_line(
    directory: Path, server: tuple[subprocess.Popen[str], str]
) -> None:
    """The key, the value, and what is allowed."""
    _, address = server
    text = (directory / "server.toml").read_text(encoding="utf-8")
    other = text.replace('"data"', '"other"').replace('"127.0.0.1:0"', f'"{address}"')
    (directory / "other.toml").write_text(other, encoding="utf-8")
    second = craft("serve", "-c", "other.toml", "-m", "bank:Accounts", directory=directory)
    assert second.returncode == 1
    assert "in use" in second.stderr.splitlines()[-1]
    assert "Traceback" not in second.stderr


def test_a_command_that_the_state_machine_chokes_on_ends_the_server_by_name(
    directory: Path, server: tuple[subprocess.Popen[str], str]
) -> None:
    """The caller's outcome is unknown (3); the server says at which command, and ends with 1."""
    process, address = server
    proposed = craft("propose", address, "ann five", directory=directory)
    assert (proposed.returncode, proposed.stdout) == (3, "")
    assert proposed.stderr.startswith("craft: unknown outcome: ")
    rest = process.communicate()[0]
    assert process.returncode == 1
    last = rest.splitlines()[-1]
    assert last.startswith("craft: error: apply_batch raised at command 1 of 1, b'ann five'")


def test_a_reader_that_goes_away_ends_watching_quietly(
    directory: Path, server: tuple[subprocess.Popen[str], str]
) -> None:
    """`craft status --watch | head`: no traceback, and the exit code of a closed pipe."""
    _, address = server
    with start("status", address, "--watch", directory=directory) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait() == 141


def test_ctrl_c_ends_watching_quietly(directory: Path, server: tuple[subprocess.Popen[str], str]) -> None:
    """And with the exit code of Ctrl-C."""
    _, address = server
    with start("status", address, "--watch", "--json", directory=directory) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert "Traceback" not in watching.stdout.read()
    assert watching.returncode == 130
