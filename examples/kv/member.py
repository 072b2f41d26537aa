"""A server that writes its own configuration: it creates a cluster, or joins one, and is started so again.

For containers, whose number is all that one wants to say: the same command on each.

Knows: how configurations are made, and `craft members`. Must not know: what a server does.

Invariants:
- A directory with a configuration is used as it is. Only one without may create a cluster, or join one.
- A cluster is created only if it is asked for, and nobody of those named to join answers.
- Who comes back with an empty directory at an address that a member has takes that member's place, under a
  new id: what the old one had acknowledged may be gone, and its disk must not be mistaken for this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import craft
from examples.kv.settings import MEMORY

CRAFT_FILE, STORE_FILE = "craft.toml", "store.toml"

FIRST_ID = 1
ASK_S = 60
ADD_ATTEMPTS = 10
"""Several may come at once and choose the same id: all but one are refused, and choose again."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a server is told of itself."""

    directory: Path
    host: str
    """By which name or address the others, and clients, reach it."""
    peer_port: int = 7000
    client_port: int = 8000
    redis_port: int = 6379
    http_port: int = 8080
    create: bool = False
    join: tuple[str, ...] = ()
    """Where servers of the cluster listen for craft's clients."""
    insecure_listen: bool = False
    store: str = MEMORY

    @property
    def address(self) -> str:
        """At which the others reach it."""
        return f"{self.host}:{self.peer_port}"


def prepare(member: Member) -> Path:
    """The settings to serve with, made if they are not there. Raises craft.ConfigError, craft.Unreachable."""
    store = member.directory / STORE_FILE
    if store.exists():
        return store
    member.directory.mkdir(parents=True, exist_ok=True)
    own = joined(member)
    if own is None:
        if not member.create:
            raise craft.Unreachable(
                f"nobody answers at {', '.join(member.join) or 'no address'}; allowed: --join with that of"
                " a server that runs, or --create for a new cluster"
            )
        write(member, FIRST_ID, {"servers": {FIRST_ID: member.address}})
    else:
        write(member, own, {"join": list(member.join)})
    return store


def joined(member: Member) -> int | None:
    """Become a member; returns the id, or None where nobody answers."""
    for address in member.join:
        found = members(address, "list")
        for _ in range(ADD_ATTEMPTS):
            if found is None:
                break
            ids = {server["address"]: server["server_id"] for server in found["servers"]}
            own = 1 + max(map(int, ids.values()))
            if member.address in ids:  # an address is one server's
                members(address, "--no-wait", "remove", str(ids[member.address]))
            if members(address, "--no-wait", "add", str(own), member.address) is not None:
                return own
            found = members(address, "list")
    return None


def members(address: str, *words: str) -> dict[str, Any] | None:
    """What `craft members` answers; None where it was refused, or nobody is there within `ASK_S`."""
    options = ["--timeout", str(ASK_S), *(word for word in words if word.startswith("--"))]
    command = [word for word in words if not word.startswith("--")]
    done = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", "craft", "members", address, "--json", *options, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    print(f"kv: {done.stderr.strip()}", file=sys.stderr)
    return None


def write(member: Member, server_id: int, cluster: dict[str, Any]) -> None:
    """Both files; craft's first, for the other says that all is there."""
    config = craft.Config(
        cluster="kv",
        server_id=server_id,
        data_dir=Path("data"),
        listen=f"0.0.0.0:{member.peer_port}"
        if member.insecure_listen
        else f"{member.host}:{member.peer_port}",
        client_listen=f"0.0.0.0:{member.client_port}"
        if member.insecure_listen
        else f"{member.host}:{member.client_port}",
        client_advertise=f"{member.host}:{member.client_port}",
        insecure_listen=member.insecure_listen,
        **cluster,
    )
    (member.directory / CRAFT_FILE).write_text(config.to_toml(), encoding="utf-8")
    host = "0.0.0.0" if member.insecure_listen else member.host  # noqa: S104  # asked for
    lines = [
        f'craft = "{CRAFT_FILE}"',
        f'redis_listen = "{host}:{member.redis_port}"',
        f'http_listen = "{host}:{member.http_port}"',
        f"insecure_listen = {str(member.insecure_listen).lower()}",
        f'store = "{member.store}"',
    ]
    (member.directory / STORE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse_join(texts: Sequence[str]) -> tuple[str, ...]:
    """Addresses, also several in one text with commas: environments have no lists."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
