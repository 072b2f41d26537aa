"""The reference of the configuration says what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from craft.config import Config, TlsConfig
from craft.config.toml import known_keys
from tests.regenerate import GENERATED, ROOT, TABLES, attribute_docs, regenerated

PAGE = "docs/reference/configuration.md"


@pytest.mark.parametrize("path", GENERATED)
def test_generated_parts_are_up_to_date(path: str) -> None:
    """A changed field, default or reason is in the docs too."""
    assert regenerated(path) == (ROOT / path).read_text(encoding="utf-8"), "run: python -m tests.regenerate"


@pytest.mark.parametrize("kind", TABLES.values(), ids=[kind.__name__ for kind in TABLES.values()])
def test_every_field_has_its_reason(kind: type) -> None:
    """No key without a sentence below it that says what it is for."""
    docs = attribute_docs(kind)
    assert [item.name for item in fields(kind) if not docs.get(item.name, "").endswith((".", ")"))] == []


def test_the_page_has_every_key() -> None:
    """Every key that a file may have stands in a table, or is the heading of one."""
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    tables = {prefix.rstrip(".") for prefix in TABLES}
    for key in known_keys(Config):
        assert (f"## `[{key}]`" if key in tables else f"| `{key}` |") in page


def test_the_pages_example_is_a_configuration() -> None:
    """What the page shows can be copied."""
    [example] = re.findall(r"```toml\n(.*?)```", (ROOT / PAGE).read_text(encoding="utf-8"), re.DOTALL)
    config = Config.from_toml(example, directory=Path("/etc/craft"))
    assert config.data_dir == Path("/etc/craft/data")
    assert config.tls == TlsConfig(
        Path("/etc/craft/server1.pem"), Path("/etc/craft/server1.key"), Path("/etc/craft/cluster-ca.pem")
    )
    assert config.engine.heartbeat_interval_ms == 100
