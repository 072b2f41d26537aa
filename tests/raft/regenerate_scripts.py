"""`python -m tests.raft.regenerate_scripts [name …]`: write every golden script's outputs as they are now."""

from __future__ import annotations

import sys

from tests.raft.scripting import SCRIPTS, run


def main(names: list[str]) -> None:
    """Rewrite the named scripts, or all; say which of them changed."""
    for path in sorted(SCRIPTS.glob("*.txt")):
        if names and path.stem not in names:
            continue
        before = path.read_text(encoding="utf-8")
        after = run(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.name} changed")


if __name__ == "__main__":
    main(sys.argv[1:])
