"""Clients try servers in the order given, so that a test knows whom they meet first."""

from __future__ import annotations

import random

import pytest


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "sample", lambda population, k: list(population)[:k])
