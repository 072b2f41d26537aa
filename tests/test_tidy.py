"""The house stays tidy: line lengths, docstrings, names, and how long a function or module may grow.

Two ratchets hold what is longer than it should be. They only tighten: an entry that is no longer needed, or
is larger than it needs to be, fails too.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREES = ("craft", "examples", "bench", "tests")

LINE_MAX = 110
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500

LONG_FUNCTIONS: dict[str, int] = {}
"""`craft/x.py:name` → its lines. Empty at best."""

LONG_MODULES: dict[str, int] = {}
"""`craft/x.py` → its lines. Empty at best."""

FORBIDDEN_NAME = "node"
"""A process is a server, a place in a quorum is a voter: the word says neither."""

LATER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")


def sources(*trees: str) -> dict[str, str]:
    """Every Python file of the trees, by its path in the checkout."""
    files = sorted(path for tree in trees for path in (ROOT / tree).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


def product() -> dict[str, str]:
    """The files whose length is limited: what users read."""
    return sources("craft", "examples", "bench")


# -- the rules: each returns its complaints --------------------------------------------------------


def long_lines(files: Mapping[str, str]) -> list[str]:
    """Lines that a reader must scroll sideways for; ruff's rule lets some pass (a long word, a URL)."""
    return [
        f"{path}:{number}: {len(line)} characters, allowed: {LINE_MAX}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if len(line) > LINE_MAX
    ]


def left_for_later(files: Mapping[str, str]) -> list[str]:
    """Notes that something is missing: it is an issue, or it is done."""
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if LATER.search(line)
    ]


def without_docstring(files: Mapping[str, str]) -> list[str]:
    """Modules that do not say what they are."""
    return [
        f"{path}: has no docstring" for path, text in files.items() if not ast.get_docstring(ast.parse(text))
    ]


def words_of(name: str) -> list[str]:
    """`leaderNode_id` → leader, node, id."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def forbidden_names(files: Mapping[str, str]) -> list[str]:
    """Names of which one word is the forbidden one, in the singular or plural."""
    forbidden = {FORBIDDEN_NAME, FORBIDDEN_NAME + "s"}
    return [
        f"{path}:{token.start[0]}: {token.string}: say server, peer, voter or member"
        for path, text in files.items()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.NAME and forbidden.intersection(words_of(token.string))
    ]


def functions(path: str, tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every function and method with its lines, decorators not counted."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            assert child.end_lineno is not None
            yield f"{path}:{prefix}{child.name}", child.end_lineno - child.lineno + 1
        inner = f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix
        yield from functions(path, child, inner)


def over(lengths: Mapping[str, int], limit: int, ratchet: Mapping[str, int]) -> list[str]:
    """What is longer than the limit and not in the ratchet, and what the ratchet allows without need."""
    complaints = [
        f"{name}: {lines} lines, allowed: {max(limit, ratchet.get(name, 0))}"
        for name, lines in lengths.items()
        if lines > max(limit, ratchet.get(name, 0))
    ]
    slack = [
        f"{name}: is in the ratchet with {allowed} lines, has {lengths.get(name, 0)}: tighten it"
        for name, allowed in ratchet.items()
        if max(limit, lengths.get(name, 0)) < allowed or lengths.get(name, 0) <= limit
    ]
    return complaints + slack


def function_lengths(files: Mapping[str, str]) -> dict[str, int]:
    """The lines of every function; of two with one name (overloads), the longer."""
    lengths: dict[str, int] = {}
    for path, text in files.items():
        for name, lines in functions(path, ast.parse(text)):
            lengths[name] = max(lines, lengths.get(name, 0))
    return lengths


# -- the house as it stands ------------------------------------------------------------------------


def test_no_line_is_too_long() -> None:
    """A line fits beside another file on a screen."""
    assert long_lines(sources(*TREES)) == []


def test_nothing_is_left_for_later() -> None:
    """What is committed is finished."""
    assert left_for_later(sources(*TREES)) == []


def test_every_module_says_what_it_is() -> None:
    """The first thing in a file is a sentence."""
    assert without_docstring(sources(*TREES)) == []


def test_names_are_the_fields_own() -> None:
    """One word for one thing."""
    assert forbidden_names(sources("craft")) == []


def test_functions_stay_short() -> None:
    """A function fits on a screen."""
    assert over(function_lengths(product()), FUNCTION_LINES_MAX, LONG_FUNCTIONS) == []


def test_modules_stay_short() -> None:
    """A module is read in one sitting."""
    lengths = {path: len(text.splitlines()) for path, text in product().items()}
    assert over(lengths, MODULE_LINES_MAX, LONG_MODULES) == []


# -- the rules themselves: each one fails where it should ------------------------------------------


def test_untidy_text_is_noticed() -> None:
    """Each rule on text sees its own breach and nothing else."""
    tidy = {"a.py": '"""A module."""\n\nserver_id = 1\n' + "#" * LINE_MAX}
    for rule in (long_lines, left_for_later, without_docstring, forbidden_names):
        assert rule(tidy) == []
    assert long_lines({"a.py": "#" * (LINE_MAX + 1)}) == ["a.py:1: 111 characters, allowed: 110"]
    assert left_for_later({"a.py": "x = 1\n# TO" + "DO: more"}) == ["a.py:2: # TO" + "DO: more"]
    assert without_docstring({"a.py": "x = 1"}) == ["a.py: has no docstring"]


def test_a_forbidden_name_is_noticed_in_every_spelling() -> None:
    """In snake and camel case, in the plural; not inside another word, nor in prose."""
    for name in ("node", "nodes", "leader_node", "NodeId", "leaderNode", "NODE_MAX"):
        assert len(forbidden_names({"a.py": f"{name} = 1"})) == 1, name
    for text in ("anode = 1", "denoted = 1", "x = 'node'  # a node"):
        assert forbidden_names({"a.py": text}) == [], text


def test_a_long_function_is_noticed_and_the_ratchet_only_tightens() -> None:
    """Longer than allowed fails; so does a ratchet with slack, or without need."""
    method = "class C:\n    async def f(self):\n" + "        x = 1\n" * FUNCTION_LINES_MAX
    lengths = function_lengths({"a.py": method})
    assert lengths == {"a.py:C.f": FUNCTION_LINES_MAX + 1}
    assert over(lengths, FUNCTION_LINES_MAX, {}) == ["a.py:C.f: 71 lines, allowed: 70"]
    assert over(lengths, FUNCTION_LINES_MAX, {"a.py:C.f": 71}) == []
    assert len(over(lengths, FUNCTION_LINES_MAX, {"a.py:C.f": 72})) == 1
    assert len(over(lengths, FUNCTION_LINES_MAX, {"a.py:C.f": 71, "a.py:gone": 90})) == 1
    assert len(over({"a.py:C.f": 60}, FUNCTION_LINES_MAX, {"a.py:C.f": 71})) == 1
