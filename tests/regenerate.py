"""`python -m tests.regenerate`: write the generated parts of the docs anew; a test fails where they are old.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the prose around it is by hand.
The picture of a run is drawn anew as well. A test holds it to what the page says of it, not to its bytes: any
change of craft's timing moves something in it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from craft.config import RELATIONS, ClockConfig, Config, TlsConfig
from craft.config.checks import limit_pairs, plain, unit_range
from craft.limits import ClientLimits, EngineLimits, TailLimits, TransportLimits
from craft.testing import timeline
from craft.testing.moments import ALL_MOMENTS
from craft.testing.parallel import attempt
from craft.testing.plan import MS, Plan
from craft.testing.trace import KINDS, Trace
from tests.mutants import hunt

ROOT = Path(__file__).resolve().parent.parent

TABLES: Mapping[str, type] = {
    "": Config,
    "tls.": TlsConfig,
    "clock.": ClockConfig,
    "engine.": EngineLimits,
    "transport.": TransportLimits,
    "clients.": ClientLimits,
    "tail.": TailLimits,
}


# -- the reference of the configuration ------------------------------------------------------------


def attribute_docs(kind: type) -> dict[str, str]:
    """The sentences that stand below each field of a class."""
    docs, name = {}, ""
    [body] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    for statement in body.body:
        if isinstance(statement, ast.AnnAssign):
            name = ast.unparse(statement.target)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            docs[name] = " ".join(str(statement.value.value).split())
            name = ""
        else:
            name = ""
    return docs


def unit(name: str, kind: type) -> str:
    """The unit at the end of a name, as a word."""
    if kind is not int or unit_range(name) is None:
        return ""
    stem = re.sub(r"_(min|max)$", "", name)
    return "ms" if stem.endswith("_ms") else "bytes" if stem.endswith("_bytes") else "count"


def default(item: Field[Any]) -> str:
    """A field's default, as TOML writes it; sizes also in KiB or MiB."""
    if item.default_factory is list:
        return "`[]`"
    if item.default is MISSING:
        return "required"
    if item.default is None:
        return "none"
    if isinstance(item.default, bool):
        return f"`{str(item.default).lower()}`"
    for size, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if "_bytes" in item.name and item.default % size == 0:
            return f"`{item.default}` ({item.default // size} {name})"
    return f"`{item.default}`"


def keys_table(prefix: str) -> str:
    """One table of the file: a row for each key that is not a table itself."""
    kind = TABLES[prefix]
    docs = attribute_docs(kind)
    rows = ["| Key | Default | Unit | What for |", "|---|---|---|---|"]
    for item in fields(kind):
        annotation = inspect.get_annotations(kind, eval_str=True)[item.name]
        if not is_dataclass(plain(annotation)):
            cells = (f"`{prefix}{item.name}`", default(item), unit(item.name, annotation), docs[item.name])
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def relations_list() -> str:
    """What must hold between limits: by the table in the code, and by names."""
    lines = [f"- `{item.bound} <= {item.greater}`, {item.reason}." for item in RELATIONS]
    for prefix, kind in TABLES.items():
        pairs = limit_pairs([item.name for item in fields(kind)])
        lines += [f"- `{prefix}{lesser} <= {prefix}{greater}`." for lesser, greater in pairs]
    return "\n".join(lines)


# -- the reference of the simulator ----------------------------------------------------------------


def words_table(heading: str, words: Mapping[str, str]) -> str:
    """A row for each word and what it means."""
    rows = [f"| `{word}` | {meaning} |" for word, meaning in words.items()]
    return "\n".join([f"| {heading} | |", "|---|---|", *rows])


GENERATED: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "docs/reference/configuration.md": {
        "keys": lambda: keys_table(""),
        "tls": lambda: keys_table("tls."),
        "clock": lambda: keys_table("clock."),
        "engine": lambda: keys_table("engine."),
        "transport": lambda: keys_table("transport."),
        "clients": lambda: keys_table("clients."),
        "tail": lambda: keys_table("tail."),
        "relations": relations_list,
    },
    "docs/reference/simulate.md": {
        "events": lambda: words_table("Kind", KINDS),
        "moments": lambda: words_table("Moment", ALL_MOMENTS),
    },
    "docs/explanation/simulation.md": {"mutants": hunt.table},
}
"""File → part → what makes its text."""


# -- the picture of a run --------------------------------------------------------------------------

PICTURE, PICTURE_PLAN = "docs/images/a-leader-is-killed.svg", "docs/images/a-leader-is-killed.json"
PICTURE_WINDOW = (460 * MS, 650 * MS)


def picture() -> str:
    """The picture of the page on simulation, from a plan that is kept beside it."""
    plan = Plan.from_json((ROOT / PICTURE_PLAN).read_text(encoding="utf-8"))
    begin, end = PICTURE_WINDOW
    return timeline.render(
        list(attempt(plan, trace=Trace(keep=True)).trace),
        servers=plan.servers,
        groups=plan.groups,
        title=f"craft simulate --replay {PICTURE_PLAN}",
        begin=begin,
        end=end,
    )


# -- writing ---------------------------------------------------------------------------------------


def regenerated(path: str) -> str:
    """A file's text with its generated parts made anew. Each known part must stand in it once."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for name, make in GENERATED[path].items():
        opening, closing = f"<!-- generated: {name} -->", "<!-- end -->"
        assert text.count(opening) == 1, f"{path} must have {opening} once"
        before, _, rest = text.partition(opening)
        _, found, after = rest.partition(closing)
        assert found, f"{path}: {opening} has no {closing}"
        text = f"{before}{opening}\n{make()}\n{closing}{after}"
    return text


def main() -> int:
    """Write every file whose generated parts are old; say which."""
    for path in GENERATED:
        text = regenerated(path)
        if text != (ROOT / path).read_text(encoding="utf-8"):
            (ROOT / path).write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    drawn = picture()
    if not (ROOT / PICTURE).exists() or drawn != (ROOT / PICTURE).read_text(encoding="utf-8"):
        (ROOT / PICTURE).write_text(drawn, encoding="utf-8")
        print(f"wrote {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
