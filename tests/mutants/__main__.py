"""`python -m tests.mutants`: hunt every mutant and put on record what caught it.

With names: only those. `--missing`: only those without a kill on record. `--stale`: only those, and those
that the seed on record does not catch any more, because the product has changed. The table in the docs is
made from the record by `python -m tests.regenerate`.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.mutants import hunt
from tests.mutants.catalogue import MUTANTS


def main() -> int:
    """0 where every mutant hunted was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to hunt; default: all")
    parser.add_argument("--missing", action="store_true", help="only those without a kill on record")
    parser.add_argument("--stale", action="store_true", help="and those whose seed has grown old")
    parser.add_argument("--seconds", type=float, default=hunt.CPU_SECONDS_MAX, help="CPU seconds a mutant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    known = [mutant.name for mutant in MUTANTS]
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no such mutant: {', '.join(unknown)}; there are {', '.join(known)}")
    names = options.names or [name for name in known if not (options.missing and name in hunt.load())]
    alive = 0
    kills = hunt.load()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        hunts = {
            pool.submit(hunt.by_name, name, options.seconds, kills.get(name) if options.stale else None): name
            for name in names
        }
        for done in as_completed(hunts):
            name, kill, said = hunts[done], None, "alive"
            try:
                kill = done.result()
            except Exception as error:  # noqa: BLE001  # of this hunt; the others go on
                said = f"not hunted to the end: {error!r}"
            kills.pop(name, None)
            if kill is not None:
                kills[name] = kill
                said = f"seed {kill.seed}, {kill.cpu_seconds} s: {kill.property}"
            hunt.save(kills)
            alive += kill is None
            print(f"{name:42} {said}", flush=True)
    print(f"{len(names) - alive} of {len(names)} caught")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
