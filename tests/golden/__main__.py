"""`python -m tests.golden`: write the fixtures of the present versions.

Only for what no release has: a released version's fixtures never change. A change of a format after that is
a new version, with fixtures of its own beside these (docs/decisions, "adjacent versions work together").
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import tempfile
from typing import get_args

from craft.messages import Message
from craft.storage import FORMAT_VERSION
from craft.wire import PROTOCOL_VERSION, Hello, encode_answer, encode_frame, encode_hello
from tests.golden.examples import FRAMES, HANDSHAKES, MESSAGES
from tests.storage.disks import FAST_FOLDER
from tests.storage.flips import images

HERE = pathlib.Path(__file__).parent
DIRECTORY = HERE / f"format{FORMAT_VERSION}"
WIRE = HERE / f"wire{PROTOCOL_VERSION}.json"
NOT_KEPT = ("LOG*", "OPTIONS*", "LOCK", "lock")
"""What nothing reads, and what would tell where it was made."""


def write_directory() -> None:
    """A data directory as a kill leaves it: tables, log files, side files, snapshots."""
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as folder:
        (killed,) = (image for image in images(pathlib.Path(folder)) if image.name == "killed")
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        shutil.copytree(killed.path, DIRECTORY, ignore=shutil.ignore_patterns(*NOT_KEPT))
    (DIRECTORY / "boot").write_text("another boot\n")


def write_wire() -> None:
    """The bytes of every example, in hexadecimal digits."""
    lines = {name: encode_frame(frame).hex() for name, frame in FRAMES.items()}
    for name, said in HANDSHAKES.items():
        encoded = encode_hello(said) if isinstance(said, Hello) else encode_answer(said)
        lines[name] = encoded.hex()
    WIRE.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Write both; 1 where a message has no example."""
    missing = {kind.__name__ for kind in get_args(Message)} - {type(message).__name__ for message in MESSAGES}
    if missing:
        print(f"no example in tests/golden/examples.py: {', '.join(sorted(missing))}")
        return 1
    write_directory()
    write_wire()
    return 0


if __name__ == "__main__":
    sys.exit(main())
