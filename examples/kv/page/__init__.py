"""The live view: one file that needs nothing from elsewhere, and what a browser may do with it."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("index.html")


class Page(NamedTuple):
    """What is sent."""

    content: bytes
    policy: str
    """The browser runs this very script, and talks to this server only."""


@cache
def page() -> Page:
    """Read once."""
    content = FILE.read_bytes()
    hashes = {}
    for tag in ("script", "style"):
        [inside] = re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), content, re.DOTALL)
        hashes[tag] = f"{tag}-src 'sha256-{b64encode(sha256(inside).digest()).decode()}'"
    # What a script sets on an element (a colour) is no inline style.
    rest = "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return Page(content, f"default-src 'none'; {hashes['script']}; {hashes['style']}; {rest}")
