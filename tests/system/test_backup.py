"""The commands that look into a cluster and save it, as processes: log, backup, restore, recover."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from craft.cli.demo.cluster import free_ports
from tests.cli.running import BANK, craft, start

pytestmark = pytest.mark.system

KEPT = """
    def snapshot(self):
        import json
        fork = json.dumps(sorted(self.balances.items())).encode()
        return lambda: [fork]

    def restore(self, chunks):
        import json
        self.balances = dict(json.loads(b"".join(chunks)))
"""


def configuration(directory: Path, name: str) -> None:
    (port,) = free_ports(1)
    (directory / f"{name}.toml").write_text(
        f'cluster = "{name}"\nserver_id = 1\ndata_dir = "{name}"\nclient_listen = "127.0.0.1:0"\n'
        f'[servers]\n1 = "127.0.0.1:{port}"\n',
        encoding="utf-8",
    )


def address_of(process: subprocess.Popen[str]) -> str:
    """Where a server listens for clients, once it is ready."""
    assert process.stdout is not None
    address = ""
    for line in process.stdout:
        found = re.search(r"on (\S+) for clients", line)
        address = found[1] if found else address
        if line == "craft: server 1 is ready\n":
            return address
    pytest.fail("the server ended")


def done(directory: Path, *arguments: str) -> str:
    """What a command says that works."""
    ended = craft(*arguments, directory=directory)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_cluster_is_looked_into_saved_and_made_again(tmp_path: Path) -> None:
    """From a running server and from its directory: the same log, and the same state twice."""
    (tmp_path / "bank.py").write_text(BANK + KEPT, encoding="utf-8")
    for name in ("old", "new", "saved"):
        configuration(tmp_path, name)
    with start("serve", "-c", "old.toml", "-m", "bank:Accounts", directory=tmp_path) as process:
        try:
            address = address_of(process)
            for amount in ("5", "7", "30"):
                done(tmp_path, "propose", address, f"ann {amount}")
            rows = [
                json.loads(row) for row in done(tmp_path, "log", "--connect", address, "--json").splitlines()
            ]
            assert [row["commands"] for row in rows][-3:] == [["ann 5"], ["ann 7"], ["ann 30"]]
            assert "up to position 4" in done(tmp_path, "backup", "backup", "--connect", address)
        finally:
            process.send_signal(signal.SIGTERM)
    stopped = done(tmp_path, "log", "old", "--uncommitted", "--json").splitlines()
    assert [json.loads(row)["timestamp"] for row in stopped] == [row["timestamp"] for row in rows]
    machine = ("-m", "bank:Accounts")
    done(tmp_path, "restore", "backup", "-c", "new.toml", *machine, "--until", str(rows[2]["timestamp"]))
    said = done(tmp_path, "recover", "old", "-c", "saved.toml", *machine, "--yes-lose-what-is-missing")
    assert "cluster 'old': servers 1 are left" in said
    states = []
    for name in ("new", "saved"):
        done(tmp_path, "verify", name)
        (snapshot,) = (tmp_path / name / "snapshots").glob("*.snapshot")
        states.append(snapshot.read_bytes())
    assert b'[["ann", 12]]' in states[0]
    assert b'[["ann", 42]]' in states[1]
