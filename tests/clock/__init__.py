"""Tests of craft.clock."""
