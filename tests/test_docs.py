"""The docs tell the truth: programs run and print what they say, commands and links and files exist.

How a page says what its blocks are
- A fenced `python` block is a whole program and is run. If "It prints:" and a `text` block follow, that is
  its output.
- A page with `<!-- file: NAME -->` above some blocks is a session: these blocks are files, and the page's
  `console` blocks are run in order, in one shell. `$` begins a command, other lines are its output, and `...`
  stands for anything.
- Ports are exchanged for free ones, so that pages can be checked side by side.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

import craft
import craft.testing
from craft.cli import parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

SECONDS_MAX = 120
"""A program or session takes seconds; this only ends one that hangs."""

FENCE = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
ADDRESS = re.compile(r"127\.0\.0\.1:(\d{4,5})")


class Block(NamedTuple):
    """A fenced block. `file`: the page says that it is a file of this name. `prints`: its promised output."""

    page: str
    line: int
    language: str
    text: str
    file: str | None
    prints: str | None


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[Block]:
    """Every fenced block of a page."""
    page = read(name)
    found = []
    for match in FENCE.finditer(page):
        printed = re.match(
            r"\n+It prints:\n\n```text\n(.*?)^```$", page[match.end() :], re.MULTILINE | re.DOTALL
        )
        line = page.count("\n", 0, match.start("language")) + 1
        found.append(
            Block(
                name, line, match["language"], match["text"], match["file"], printed[1] if printed else None
            )
        )
    return found


ALL_BLOCKS = [block for name in NAMES for block in blocks(name)]
SESSIONS = sorted({block.page for block in ALL_BLOCKS if block.file})
PROGRAMS = [block for block in ALL_BLOCKS if block.language == "python" and block.page not in SESSIONS]


# -- ports -----------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def with_free_ports(text: str) -> str:
    """The text with free ports instead of those in its addresses, wherever these numbers stand."""
    ports = sorted(set(ADDRESS.findall(text)))
    exchange = dict(zip(ports, map(str, free_ports(len(ports))), strict=True))
    if not exchange:
        return text
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda match: exchange[match[1]], text)


# -- programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", PROGRAMS, ids=[f"{block.page}:{block.line}" for block in PROGRAMS])
def test_the_program_runs_and_prints_what_the_page_says(block: Block, tmp_path: Path) -> None:
    """What a reader copies works as it stands."""
    program = tmp_path / "program.py"
    program.write_text(with_free_ports(block.text), encoding="utf-8")
    finished = subprocess.run(
        (sys.executable, program.name),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    if block.prints is not None:
        assert finished.stdout == block.prints


def test_the_tutorials_programs_promise_their_output() -> None:
    """The rule above has something to hold on to."""
    promised = {block.page for block in PROGRAMS if block.prints}
    assert {"docs/tutorial/1-one-process.md", "docs/how-to/embed-the-core.md"} <= promised


def test_the_readmes_program_is_about_twenty_lines() -> None:
    """A state machine and a server, at a glance."""
    [program] = [block for block in PROGRAMS if block.page == "README.md"]
    assert "apply_batch" in program.text and "open_server" in program.text
    assert len([line for line in program.text.splitlines() if line]) <= 20


# -- sessions --------------------------------------------------------------------------------------

MARK = "-- end of the command --"
SERVE = re.compile(r"^craft serve .*> (\S+) 2>&1 &$")


class Command(NamedTuple):
    """One command of a session, and what it prints."""

    text: str
    prints: list[str]


def commands(block: Block) -> list[Command]:
    """The commands of a console block."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            found[-1].prints.append(line)
    return found


def script(console: list[Block]) -> str:
    """One shell for all commands. A server is waited for at the end of its block, as a reader would."""
    lines = ["trap 'kill -9 $(jobs -p) 2> /dev/null' EXIT"]
    for block in console:
        logs = []
        for command in commands(block):
            served = SERVE.match(command.text)
            if served:
                logs.append(served[1])
                lines.append(f"rm -f {served[1]}")
            lines += [command.text, f"echo '{MARK}'"]
        lines += [f"until grep -qs 'is ready' {log}; do sleep 0.1; done" for log in logs]
    return "\n".join([*lines, "wait", ""])


def session(page: str) -> list[Block]:
    """The page's blocks, with ports of their own."""
    own = [block for block in ALL_BLOCKS if block.page == page]
    texts = with_free_ports("\0".join([block.text for block in own])).split("\0")
    return [block._replace(text=text) for block, text in zip(own, texts, strict=True)]


def run_session(own: list[Block], directory: Path) -> str:
    """Write the page's files, run its commands; returns all that was printed."""
    for block in own:
        if block.file:
            (directory / block.file).write_text(block.text, encoding="utf-8")
    bin_directory = directory / "bin"
    bin_directory.mkdir()
    craft_shim, python_shim = bin_directory / "craft", bin_directory / "python3"
    craft_shim.write_text(f"#!{sys.executable}\nimport sys\nfrom craft.cli import main\nsys.exit(main())\n")
    python_shim.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n'
    )  # as where craft is installed
    craft_shim.chmod(0o755)
    python_shim.chmod(0o755)
    path = f"{bin_directory}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ("bash", "-c", script([block for block in own if block.language == "console"])),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        return shell.communicate(timeout=SECONDS_MAX)[0]
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)  # the shell and the servers that it started, nobody else
            shell.wait()


def matches(expected: list[str], printed: list[str]) -> bool:
    """Do the lines agree? `...` stands for anything, within a line or as a line."""
    pattern = "\n".join(
        ".*" if line == "..." else re.escape(line).replace(r"\.\.\.", "[^\n]*") for line in expected
    )
    return re.fullmatch(pattern, "\n".join(printed), re.DOTALL) is not None


@pytest.mark.system
@pytest.mark.parametrize("page", SESSIONS)
def test_the_session_goes_as_the_page_says(page: str, tmp_path: Path) -> None:
    """Every command of the tutorial, in its order, with real processes, prints what the page shows."""
    own = session(page)
    expected = [command for block in own if block.language == "console" for command in commands(block)]
    printed = run_session(own, tmp_path).split(f"{MARK}\n")
    logs = "".join(f"\n{log.name}:\n{log.read_text()}" for log in sorted(tmp_path.glob("*.log")))
    assert len(printed) == len(expected) + 1, f"the session broke off: {printed}{logs}"
    for command, lines in zip(expected, printed, strict=False):
        if not command.text.endswith("&"):
            assert matches(command.prints, lines.splitlines()), f"$ {command.text}\n{lines}{logs}"


# -- commands --------------------------------------------------------------------------------------


def shell_lines() -> Iterator[tuple[str, str]]:
    """Every command line that a page shows, with where it stands; lines joined by a backslash are one."""
    for block in ALL_BLOCKS:
        text = block.text.replace("\\\n", " ")
        for number, line in enumerate(text.splitlines()):
            where = f"{block.page}:{block.line + number + 1}"
            if block.language == "sh":
                yield from ((where, part.strip()) for part in line.split("&&"))
            elif block.language == "console" and line.startswith("$ "):
                yield where, line[2:]


def test_the_craft_commands_shown_are_understood() -> None:
    """Each subcommand and each option that a page shows exists."""
    for where, line in shell_lines():
        words = shlex.split(re.split(r" [|>&]| 2>", line)[0], comments=True)
        if words and Path(words[0]).name == "craft":
            try:
                parser().parse_args(words[1:])
            except SystemExit as error:
                assert error.code == 0, f"{where}: {line}"


def test_the_commands_named_in_prose_exist() -> None:
    """`craft something` is a subcommand, `python -m something` a module."""
    subcommands = set(re.findall(r"^    (\w+)", parser().format_help(), re.MULTILINE))
    for name in NAMES:
        for word in re.findall(r"`(?:\.venv/bin/)?craft ([a-z]+)", read(name)):
            assert word in subcommands, f"{name}: craft {word}"
        for module in re.findall(r"python -m ([a-z_.]+)", read(name)):
            assert importlib.util.find_spec(module) is not None, f"{name}: python -m {module}"


def test_the_readmes_first_two_blocks_are_the_demo_and_the_checks() -> None:
    """`.ci/run` takes them by their number."""
    first, second = [
        block.text for block in ALL_BLOCKS if block.page == "README.md" and block.language == "sh"
    ]
    for block in (first, second):
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")
    assert first.rstrip().endswith(".venv/bin/craft demo")
    assert second.rstrip().endswith(".venv/bin/python -m tests")


# -- links and names -------------------------------------------------------------------------------


def prose(name: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", read(name))


def anchors(name: str) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """Each relative link names a file that exists, and a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert found.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(found.relative_to(ROOT).as_posix()), f"{name}: {target}"


@pytest.mark.parametrize("name", NAMES)
def test_files_named_exist(name: str) -> None:
    """A path of this repository in a page is right."""
    for path in re.findall(r"`((?:craft|tests|examples|bench|docs)/[\w./-]*)`", read(name)):
        assert (ROOT / path).exists(), f"{name}: {path}"


def test_every_page_is_in_the_index() -> None:
    """A page that nobody links to is not read."""
    targets = re.findall(r"\]\(([^)#\s]+)", read("docs/index.md"))
    linked = {((ROOT / "docs") / target).resolve() for target in targets}
    assert [
        name
        for name, page in zip(NAMES, PAGES, strict=True)
        if name.startswith("docs/") and page not in linked
    ] == ["docs/index.md"]


@pytest.mark.parametrize("name", NAMES)
def test_words_are_the_projects_own(name: str) -> None:
    """One word for one thing, in the docs as in the code."""
    assert re.findall(r"\b[Nn]odes?\b", read(name)) == []


# -- references ------------------------------------------------------------------------------------


def test_the_api_reference_has_every_public_name() -> None:
    """Nothing is public in secret."""
    page = read("docs/reference/api.md")
    assert [name for name in (*craft.__all__, *craft.testing.__all__) if f"`{name}" not in page] == []
    shell = {"run", "close", "submit", "engine", "check_open"}  # for `open_server` and the listener
    methods = [name for name in vars(craft.Server) if not name.startswith("_") and name not in shell]
    assert [name for name in methods if f"erver.{name}" not in page and f"`{name}`" not in page] == []


async def test_the_status_reference_has_every_key_and_metric() -> None:
    """What a server tells is explained, and nothing is explained that it does not tell."""
    page = read("docs/reference/status.md")
    servers = dict(enumerate((f"127.0.0.1:{port}" for port in free_ports(2)), start=1))
    config = craft.Config(cluster="docs", server_id=1, servers=servers, client_listen="127.0.0.1:0")
    async with craft.open_server(config, _Nothing(), transport=craft.MemoryNetwork().transport(1)) as server:
        status, metrics = server.status(), server.metrics()
        await trio.lowlevel.checkpoint()
    keys = {*status, *status["groups"][0], *status["peers"][0]}
    keys |= {*status["rungs"], *status["rungs"]["total"]}
    assert [key for key in keys if f"`{key}`" not in page] == []
    names = {metric["name"]: (metric["type"], metric["unit"]) for metric in metrics}
    rows = re.findall(r"^\| `(craft_\w+)` \| (\w+) \| (\w+) \| (.*) \|$", page, re.MULTILINE)
    explained = {name: (kind, unit) for name, kind, unit, _ in rows}
    unknown = {name for name, _, _, what in rows if "absent while unknown" in what} - {*names}
    assert {name: what for name, what in explained.items() if name not in unknown} == names


class _Nothing:
    """A state machine that has nothing to do."""

    def apply_batch(self, batch: craft.Batch) -> None:
        """Nothing."""
