"""The command line without servers: help, usage errors, and what goes wrong before anything runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import craft
from craft.cli import main, parser, serve
from craft.cli.common import json_of, text_of
from examples.kv import cluster

CONFIG = 'cluster = "bank"\nserver_id = 1\nclient_listen = "127.0.0.1:0"\n[servers]\n1 = "127.0.0.1:7001"\n'


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that ends with 1."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_the_simulator_is_imported_by_those_who_simulate() -> None:
    """It would make every other command a quarter slower."""
    probe = "import sys, craft.cli as cli; cli.parser(['status']); print('craft.testing' in sys.modules)"
    done = subprocess.run((sys.executable, "-c", probe), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("serve",),
        ("status",),
        ("propose",),
        ("read",),
        ("demo",),
        ("simulate",),
        ("verify",),
        ("log",),
        ("backup",),
        ("restore",),
    ],
)
def test_help_fits_a_terminal_and_tells_exit_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Every command explains itself in 80 columns, with examples."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes:" in text
    assert not command or "examples:" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["serve"], "--config, -m/--state-machine"),
        (["serve", "-c", "x", "-m", "bank"], "'bank' is not allowed; allowed: package.module:Class"),
        (["serve", "-c", "x", "-m", "bank:1"], "'bank:1' is not allowed"),
        (["status"], "whom to ask? allowed: addresses (host:port), or --config FILE"),
        (["propose", "127.0.0.1:1"], "required: COMMAND"),
        (["propose", "127.0.0.1:1", "--hex", "0g"], "--hex: non-hexadecimal number"),
        (["read", "127.0.0.1:1", "a", "--timeout", "-1"], "'-1' is not allowed; allowed: seconds"),
        (["read", "127.0.0.1:1", "a", "--cert", "x", "--key", "y"], "TLS: allowed: --ca alone, or --ca,"),
        (["propose", "127.0.0.1:1", "a", "--ca", "x", "--key", "y"], "--ca, --cert and --key together"),
        (["demo", "--servers", "99"], "'99' is not allowed; allowed: 1 to 9"),
        (["demo", "--seconds", "soon"], "'soon' is not allowed; allowed: 1 to 3600"),
    ],
)
def test_usage_errors_end_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    """They name the value and what is allowed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_missing_configuration_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No traceback: the file and what is wrong with it."""
    line = failing(capsys, "serve", "-c", str(tmp_path / "no.toml"), "-m", "bank:Accounts")
    assert line.startswith(f"craft: error: {tmp_path}/no.toml: cannot be read:")


def test_a_wrong_configuration_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The key, the value, and what is allowed."""
    file = tmp_path / "server.toml"
    file.write_text(CONFIG.replace("server_id = 1", "server_id = 4"), encoding="utf-8")
    line = failing(capsys, "serve", "-c", str(file), "-m", "bank:Accounts")
    assert "server_id: 4 is not allowed; allowed: one of servers (1)" in line


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module:Thing", "cannot import no_such_module from"),
        ("string:Thing", "cannot make one: AttributeError: module 'string' has no attribute 'Thing'"),
        ("string:Formatter", "is no state machine; it has no method apply_batch"),
        ("fractions:Fraction.from_float", "cannot make one: TypeError"),
    ],
)
def test_what_is_no_state_machine_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, told: str
) -> None:
    """Each step that may fail says that it failed."""
    file = tmp_path / "server.toml"
    file.write_text(CONFIG, encoding="utf-8")
    line = failing(capsys, "serve", "-c", str(file), "-m", name)
    assert line.startswith(f"craft: error: --state-machine {name}:")
    assert told in line


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A write that never left was rejected, not unknown: exit code 1, not 3."""
    assert "127.0.0.1:1 cannot be reached" in failing(capsys, "propose", "127.0.0.1:1", "a")
    assert "127.0.0.1:1 cannot be reached" in failing(capsys, "read", "127.0.0.1:1", "a")
    assert "'here' is not an address" in failing(capsys, "read", "here", "a")


def test_a_server_that_cannot_be_reached_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """The others' blocks are shown all the same; the exit code tells."""
    assert main(["status", "127.0.0.1:1"]) == 1
    assert "127.0.0.1:1 cannot be reached" in capsys.readouterr().out
    assert main(["status", "127.0.0.1:1", "--json"]) == 1
    assert capsys.readouterr().out.startswith('{"127.0.0.1:1": {"error": "127.0.0.1:1 cannot be reached')


def test_a_configuration_without_a_client_port_cannot_be_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Port 0 names none either."""
    file = tmp_path / "server.toml"
    file.write_text(CONFIG, encoding="utf-8")
    assert "client_listen: names no port to ask" in failing(capsys, "status", "-c", str(file))


def test_the_demo_refuses_a_directory_of_somebody_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing in it is touched."""
    precious = tmp_path / "server-1.log"
    precious.write_text("precious", encoding="utf-8")
    assert f"--dir: '{tmp_path}' is not empty" in failing(capsys, "demo", "--dir", str(tmp_path))
    assert [precious] == list(tmp_path.iterdir())
    assert precious.read_text(encoding="utf-8") == "precious"


def test_options_of_members_stand_before_the_verb_or_at_the_end() -> None:
    """Where people write them; what stands in front is not forgotten."""
    for words in (["--json", "--timeout", "5", "list"], ["list", "--json", "--timeout", "5"]):
        options = parser().parse_args(["members", "127.0.0.1:8001", *words])
        assert (options.json, options.timeout, options.no_wait, options.ca) == (True, 5.0, False, None)
    options = parser().parse_args(["members", "127.0.0.1:8001", "--no-wait", "remove", "4", "--ca", "ca.pem"])
    assert (options.no_wait, options.json, options.timeout, str(options.ca)) == (True, False, 600.0, "ca.pem")


def test_values_are_shown_as_people_read_them() -> None:
    """Text as it is, bytes as text where they are text, anything else as JSON."""
    assert text_of("ann") == "ann"
    assert text_of(b"ann") == "ann"
    assert text_of(b"\xff\0") == "0xff00"
    assert text_of(5) == "5"
    assert json_of({b"ann": (1, b"\xff", None)}) == '{"ann": [1, "0xff", null]}'


@pytest.mark.parametrize("say", [serve.say, cluster.say], ids=["craft serve", "the store"])
def test_what_servers_say_is_written_line_by_line(say: Callable[[str], None]) -> None:
    """Several share a stream, which may be unbuffered (PYTHONUNBUFFERED); whole lines do not mix."""
    program = f"from {say.__module__} import say\nsay('server 1 is ready')\nsay('server 1 stops')"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # it keeps writes apart
    with ours, theirs:
        subprocess.run([sys.executable, "-u", "-c", program], stdout=theirs.fileno(), check=True)
        theirs.close()
        writes = list(iter(lambda: ours.recv(1000), b""))
    assert [write.count(b"\n") for write in writes] == [1, 1]
    assert all(write.endswith(b"\n") for write in writes)


def test_nobody_has_to_read_what_servers_say() -> None:
    """A closed pipe is no reason to end."""
    for say in (serve.say, cluster.say):
        program = f"import os\nfrom {say.__module__} import say\nsay('ready')\nos._exit(3)"
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing) as stdout:
            done = subprocess.run([sys.executable, "-c", program], stdout=stdout, check=False)
        assert done.returncode == 3


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The installed one's."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"craft {craft.__version__}\n"
