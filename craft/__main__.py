"""`python -m craft` is the `craft` command."""

from __future__ import annotations

import sys

from craft.cli import main

if __name__ == "__main__":
    sys.exit(main())
