"""The tutorial's session with the store, as a reader types it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.kv.test_clients import free_ports
from tests.test_docs import MARK, Block, blocks, commands, matches, run_session

PAGE = "docs/tutorial/3-a-key-value-store.md"
BASE = 6379
KINDS = (0, 1000, 2000, 3000)
SERVERS = 4


def with_own_ports(text: str) -> str:
    """The page's ports all follow from one."""
    base = free_ports(SERVERS)
    pages = [str(BASE + kind + number) for kind in KINDS for number in range(SERVERS)]
    found = re.sub(rf"\b({'|'.join(pages)})\b", lambda match: str(int(match[1]) - BASE + base), text)
    return found.replace("examples.kv up", f"examples.kv up --redis-port {base}")


@pytest.mark.system
def test_the_walk_through_goes_as_the_page_says(tmp_path: Path) -> None:
    """Every command prints what the page shows."""
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed")
    found: list[Block] = [block for block in blocks(PAGE) if block.language == "console"]
    texts = with_own_ports("\0".join(block.text for block in found)).split("\0")
    console = [block._replace(text=text) for block, text in zip(found, texts, strict=True)]
    expected = [command for block in console for command in commands(block)]
    try:
        printed = run_session(console, tmp_path).split(f"{MARK}\n")
    finally:
        logs = "".join(f"\n{log.name}:\n{log.read_text()}" for log in sorted(tmp_path.glob("*.log")))
    assert len(printed) == len(expected) + 1, f"the session broke off: {printed}{logs}"
    for command, lines in zip(expected, printed, strict=False):
        if not command.text.endswith("&"):
            assert matches(command.prints, lines.splitlines()), f"$ {command.text}\n{lines}{logs}"
