"""The floors of the house: which module may import which. One table, in one place.

Read from the source alone (`ast`), so imports inside functions and those for types only count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = """
0  version
0  errors limits marks < types < messages quorum state_machine < ready

1  raft.log raft.progress < raft.state < raft.membership raft.suspicion < raft.election \
     < raft.replication < raft.snapshots < raft.invariants < raft.core < raft
1  merge/
1  reads/
1  sessions/
1  membership/
1  client_sessions/
1  insisting/
1  recovery/
1  snapshots/
1  placement/
1  clock.interval
1  clock.offsets < clock.verdict
1  clock.stamper
1  clock.polling
1  clock.samples < clock.selection < clock.discipline
1  wire/

2  folding < remerging < engine/
2  applying < tailing restoring
2  logs

3  storage < storage.held storage.snapshots/ < storage.memory/ storage.rocks/
3  transport < transport.memory/ transport.tcp/
3  clock < clock.kernel clock.timeline < clock.manual clock.system clock.chrony clock.ntp < clock.watch

4  config/ stats < server/ < listener/ < client/ < archive/ < remote/ < blocking/ < cli/ < craft __main__
"""
"""A line is a floor's number and a room. A module imports from lower floors and, inside its own room, from
further left of a `<`; never from above, beside it, or another room of its floor. Names are below `craft.`
(`craft` itself is the package of public names); `name/` is a module or a whole package, inside which any
order without a cycle will do. A new module is placed here first."""

PURE_FLOORS = (0, 1, 2)
IMPURE = frozenset({"trio", "time", "random", "os", "socket", "threading", "rocksdict", "ntplib"})
"""Time, randomness, disks and sockets reach floors 0 to 2 as arguments. (Imports for types may name them.)"""

DEPENDENCIES = frozenset({"trio", "msgpack", "ntplib", "rocksdict"})
"""What the product may import beyond the standard library, as in pyproject.toml."""

EXTRAS = {"craft.cli.authority": "cryptography"}
"""A module may import an optional dependency, if it is imported itself only where that is needed."""

TESTING = "testing"
TESTING_ALLOWED_IN = frozenset({"cli.simulate"})
PUBLIC_PACKAGES = ("craft", "craft.testing")
SANS_IO_EXAMPLE = "04_sans_io"


class Import(NamedTuple):
    """One imported module, by its full name, and where it stands."""

    module: str
    line: int
    types_only: bool


class Place(NamedTuple):
    """Where a module lives: the higher the step, the more it may import of its room."""

    floor: int
    room: int
    step: int
    unit: str


# -- reading ---------------------------------------------------------------------------------------


def sources(tree: str) -> dict[str, str]:
    """Every module below `tree`, by its full name, with its text."""
    found = {}
    for path in sorted((ROOT / tree).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def types_only_lines(tree: ast.AST) -> set[int]:
    """The lines under `if TYPE_CHECKING:`."""
    lines: set[int] = set()
    for branch in ast.walk(tree):
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING"):
            for statement in branch.body:
                lines.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines


class Statement(NamedTuple):
    """One import statement: each name with what it comes from."""

    names: tuple[tuple[str, str], ...]
    line: int
    types_only: bool


@cache
def statements(text: str) -> tuple[Statement, ...]:
    """The import statements of a module. Every rule asks for them, so each module is parsed once."""
    tree = ast.parse(text)
    typing_lines = types_only_lines(tree)
    found = []
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            names = [(alias.name, alias.name) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = "." * statement.level + (statement.module or "")
            names = [(f"{base}.{alias.name}", base) for alias in statement.names]
        else:
            continue
        found.append(Statement(tuple(names), statement.lineno, statement.lineno in typing_lines))
    return tuple(found)


def imports(text: str, modules: Mapping[str, str]) -> Iterator[Import]:
    """What a module imports; `from package import module` counts as the module where `modules` has it."""
    for statement in statements(text):
        names = [full if full in modules else base for full, base in statement.names]
        for name in dict.fromkeys(names):
            yield Import(name, statement.line, statement.types_only)


def read_floors(table: str) -> dict[str, Place]:
    """The table as a map from unit to place."""
    places = {}
    for room, line in enumerate(filter(None, table.splitlines())):
        number, ladder = line.split(maxsplit=1)
        for step, units in enumerate(ladder.split("<")):
            for unit in units.split():
                assert unit not in places, f"{unit} is placed twice"
                places[unit] = Place(int(number), room, step, unit)
    return places


PLACES = read_floors(FLOORS)


def place(module: str) -> Place | None:
    """Where a module of craft lives, or None where the table does not know it."""
    name = module.removeprefix("craft.")
    if name in PLACES:
        return PLACES[name]
    parts = name.split(".")
    units = (".".join(parts[:length]) + "/" for length in range(len(parts), 0, -1))
    return next((PLACES[unit] for unit in units if unit in PLACES), None)


def is_testing(module: str) -> bool:
    """Is it part of `craft.testing`, which stands beside the product?"""
    return module == f"craft.{TESTING}" or module.startswith(f"craft.{TESTING}.")


def top(module: str) -> str:
    """The package that a module belongs to."""
    return module.split(".", maxsplit=1)[0]


# -- the rules: each returns its complaints --------------------------------------------------------


def unplaced(modules: Mapping[str, str]) -> list[str]:
    """Modules that the table does not know."""
    return [
        f"{module}: place it in FLOORS (tests/test_architecture.py), on the lowest floor that can hold it"
        for module in modules
        if place(module) is None and not is_testing(module)
    ]


def may_import(importer: Place, imported: Place) -> bool:
    """The rule of the floors."""
    if importer.unit == imported.unit:
        return importer.unit.endswith("/")
    if importer.room == imported.room:
        return imported.step < importer.step
    return imported.floor < importer.floor


def climbing(modules: Mapping[str, str]) -> list[str]:
    """Imports that go up, sideways, or out of the table's sight."""
    complaints = []
    for module, text in modules.items():
        here = place(module)
        if here is None:
            continue
        for found in imports(text, modules):
            there = place(found.module) if top(found.module) == "craft" else None
            if there is not None and not may_import(here, there):
                way = f"floor {here.floor} may not import {found.module} (floor {there.floor})"
                complaints.append(f"{module}:{found.line}: {way}")
    return complaints


def relative(modules: Mapping[str, str]) -> list[str]:
    """Relative imports, which a reader cannot search for, and which this reader does not resolve."""
    return [
        f"{module}:{found.line}: import by the full name"
        for module, text in modules.items()
        for found in imports(text, modules)
        if found.module.startswith(".")
    ]


def impure(modules: Mapping[str, str]) -> list[str]:
    """Imports of the outside world on floors 0 to 2."""
    complaints = []
    for module, text in modules.items():
        here = place(module)
        if here is None or here.floor not in PURE_FLOORS:
            continue
        complaints += [
            f"{module}:{found.line}: floor {here.floor} may not import {found.module}"
            for found in imports(text, modules)
            if top(found.module) in IMPURE and not found.types_only
        ]
    return complaints


def undeclared(modules: Mapping[str, str]) -> list[str]:
    """Imports of what an installation need not have (or of bench and tests, which are not installed)."""
    allowed = DEPENDENCIES | sys.stdlib_module_names | {"craft"}
    return [
        f"{module}:{found.line}: {found.module} is neither the standard library nor a declared dependency"
        for module, text in modules.items()
        for found in imports(text, modules)
        if top(found.module) not in allowed | {EXTRAS.get(module)} and not found.module.startswith(".")
    ]


def leaning_on_testing(modules: Mapping[str, str]) -> list[str]:
    """Product code that imports `craft.testing`."""
    return [
        f"{module}:{found.line}: product code may not import {found.module}"
        for module, text in modules.items()
        if not is_testing(module) and module.removeprefix("craft.") not in TESTING_ALLOWED_IN
        for found in imports(text, modules)
        if is_testing(found.module)
    ]


def trio_in_testing(modules: Mapping[str, str]) -> list[str]:
    """Ways from `craft.testing` to Trio, whose scheduler is random on purpose; through other modules too."""
    complaints = []
    known = {module: tuple(imports(text, modules)) for module, text in modules.items()}
    for start in filter(is_testing, modules):
        seen = {start}
        ways: list[tuple[str, ...]] = [(start,)]
        while ways:
            way = ways.pop()
            for found in known[way[-1]]:
                if top(found.module) == "trio":
                    complaints.append(f"{start} reaches trio: {' -> '.join((*way, found.module))}")
                elif found.module in modules and found.module not in seen:
                    seen.add(found.module)
                    ways.append((*way, found.module))
    return complaints


def cycle(modules: Mapping[str, str]) -> list[str]:
    """A ring of modules that import each other. (Inside a `name/` the table does not look, but this does.)"""
    graph = {
        module: {
            found.module
            for found in imports(text, modules)
            # What plays in the simulated world names the world that calls it, for types only.
            if found.module in modules and not (is_testing(module) and found.types_only)
        }
        for module, text in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"these import each other: {' -> '.join(reversed(error.args[1]))}"]
    return []


Rule = Callable[[Mapping[str, str]], list[str]]
RULES: tuple[Rule, ...] = (
    unplaced,
    climbing,
    relative,
    impure,
    undeclared,
    leaning_on_testing,
    trio_in_testing,
    cycle,
)


def public_names(package: str) -> frozenset[str] | None:
    """`__all__` of the package's text, or None where it has none."""
    for statement in ast.parse(package).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(statement.value))
    return None


def private_in_examples(examples: Mapping[str, str], packages: Mapping[str, str]) -> list[str]:
    """Examples that reach behind `import craft` and `from PACKAGE import name` of these packages."""
    public = {package: public_names(text) for package, text in packages.items()}
    complaints = []
    for example, text in examples.items():
        if example.endswith(SANS_IO_EXAMPLE):
            continue
        for statement in ast.walk(ast.parse(text)):
            if isinstance(statement, ast.Import):
                reached = {alias.name for alias in statement.names if top(alias.name) == "craft"} - {*public}
            elif isinstance(statement, ast.ImportFrom) and top(statement.module or "") == "craft":
                package, names = str(statement.module), {alias.name for alias in statement.names}
                known = public.get(package)
                reached = {package} if package not in public else set() if known is None else names - known
            else:
                continue
            complaints += [f"{example}:{statement.lineno}: {name} is not public" for name in sorted(reached)]
    return complaints


def leaning_on_bench(modules: Mapping[str, str]) -> list[str]:
    """Imports of `bench` outside its own tests."""
    return [
        f"{module}:{found.line}: nothing imports {found.module}"
        for module, text in modules.items()
        if not module.startswith("tests.bench")
        for found in imports(text, modules)
        if top(found.module) == "bench"
    ]


# -- the house as it stands ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    """No module of craft breaks any rule of the floors."""
    assert rule(sources("craft")) == []


def test_examples_import_public_names_only() -> None:
    """What an example needs, a user can have: no example reaches inside, the sans-IO one excepted."""
    modules = sources("craft")
    packages = {name: modules[name] for name in PUBLIC_PACKAGES}
    assert private_in_examples(sources("examples"), packages) == []


def test_nothing_imports_the_bench() -> None:
    """The bench stands outside: it may be thrown away without touching anything else."""
    assert leaning_on_bench({**sources("craft"), **sources("examples"), **sources("tests")}) == []


# -- the rules themselves: each one fails where it should ------------------------------------------

BROKEN_HOUSES = {
    "a module without a place": (unplaced, {"craft.misc": ""}, "craft.misc: place it in FLOORS"),
    "a submodule without a place": (unplaced, {"craft.clock.misc": ""}, "craft.clock.misc: place it"),
    "an import that goes up": (
        climbing,
        {"craft.merge": "from craft.engine import Engine"},
        "craft.merge:1: floor 1 may not import craft.engine (floor 2)",
    ),
    "siblings of floor 1": (
        climbing,
        {"craft.merge": "import craft.raft.log", "craft.raft.log": ""},
        "craft.merge:1: floor 1 may not import craft.raft.log (floor 1)",
    ),
    "raft's ladder": (
        climbing,
        {"craft.raft.log": "from craft.raft import core", "craft.raft.core": ""},
        "craft.raft.log:1: floor 1 may not import craft.raft.core (floor 1)",
    ),
    "steps of one rung": (
        climbing,
        {"craft.raft.log": "from craft.raft import progress", "craft.raft.progress": ""},
        "craft.raft.log:1: floor 1 may not import craft.raft.progress (floor 1)",
    ),
    "one adapter and another": (
        climbing,
        {"craft.transport.tcp": "from craft.storage import Identity"},
        "craft.transport.tcp:1: floor 3 may not import craft.storage (floor 3)",
    ),
    "the shell's ladder": (
        climbing,
        {"craft.server": "def serve():\n    from craft.cli import main"},
        "craft.server:2: floor 4 may not import craft.cli (floor 4)",
    ),
    "the public names from inside": (
        climbing,
        {"craft.cli.demo": "from craft import open_server", "craft": ""},
        "craft.cli.demo:1: floor 4 may not import craft (floor 4)",
    ),
    "a relative import": (relative, {"craft.cli": "from .demo import run"}, "craft.cli:1: import by"),
    "time on a pure floor": (
        impure,
        {"craft.engine.turn": "from time import monotonic_ns"},
        "craft.engine.turn:1: floor 2 may not import time",
    ),
    "an undeclared dependency": (
        undeclared,
        {"craft.cli": "import rich.table"},
        "craft.cli:1: rich.table is neither",
    ),
    "tests in the product": (undeclared, {"craft.cli": "import tests.helpers"}, "tests.helpers is neither"),
    "testing in the product": (
        leaning_on_testing,
        {"craft.cli.demo": "from craft.testing import simulator"},
        "craft.cli.demo:1: product code may not import craft.testing",
    ),
    "trio in testing, by a detour": (
        trio_in_testing,
        {"craft.testing.disk": "import craft.config", "craft.config": "import trio"},
        "craft.testing.disk reaches trio: craft.testing.disk -> craft.config -> trio",
    ),
    "a ring inside a package": (
        cycle,
        {"craft.engine.a": "import craft.engine.b", "craft.engine.b": "import craft.engine.a"},
        "these import each other: craft.engine.",
    ),
}


@pytest.mark.parametrize(
    ("rule", "house", "complaint"),
    BROKEN_HOUSES.values(),
    ids=[name.replace(" ", "_") for name in BROKEN_HOUSES],
)
def test_a_broken_house_is_noticed(rule: Rule, house: dict[str, str], complaint: str) -> None:
    """Each rule, broken once, complains of the module and says what it did."""
    complaints = rule(house)
    assert len(complaints) == 1
    assert complaint in complaints[0]


def test_what_is_allowed_is_not_complained_of() -> None:
    """Lower floors, lower steps, the inside of a package, types only: none of these is a breach."""
    house = {
        "craft": "from craft.cli import main",
        "craft.cli": "",
        "craft.cli.simulate": "from craft.testing import simulator",
        "craft.testing.simulator": "from craft.engine import Engine",
        "craft.engine": "from craft.engine.turn import Turn\nfrom craft.raft import Raft",
        "craft.engine.turn": "import typing\nif typing.TYPE_CHECKING:\n    from random import Random",
        "craft.raft": "from craft.raft.core import Raft",
        "craft.raft.core": "from craft.raft import log",
        "craft.raft.log": "from craft.types import Entry",
        "craft.quorum": "",
        "craft.types": "import struct",
        "craft.reads": "from craft import quorum",
        "craft.storage.rocks": "import rocksdict\nfrom craft.storage import Identity\nimport craft.wire",
        "craft.storage": "",
        "craft.wire": "import msgpack",
    }
    assert [complaint for rule in RULES for complaint in rule(house)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import craft.server",
        "from craft.config import Config",
        "from craft import engine",
        "import craft.raft as r",
        "from craft.testing import swarm",
        "from craft.testing.user import simulate",
    ],
)
def test_an_example_that_reaches_inside_is_noticed(line: str) -> None:
    """Anything but the packages for users and their public names is behind the counter."""
    packages = {"craft": "__all__ = ['Config', 'open_server']", "craft.testing": "__all__ = ['simulate']"}
    assert private_in_examples({"examples.09_new": line}, packages) != []
    assert private_in_examples({"examples.04_sans_io": line}, packages) == []
    public = "import craft\nfrom craft import Config\nfrom craft.testing import simulate"
    assert private_in_examples({"examples.09_new": public}, packages) == []


def test_an_import_of_the_bench_is_noticed() -> None:
    """Neither product nor examples nor tests lean on the bench; its own tests may."""
    assert leaning_on_bench({"craft.cli": "from bench import load"}) == ["craft.cli:1: nothing imports bench"]
    assert leaning_on_bench({"tests.bench.test_load": "from bench import load"}) == []


def test_the_table_and_the_package_agree_on_dependencies() -> None:
    """DEPENDENCIES above are exactly those that an installation brings."""
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {re.split(r"[<>=~!\[ ;]", line)[0] for line in project["dependencies"]} == DEPENDENCIES
