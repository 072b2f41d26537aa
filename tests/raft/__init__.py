"""Tests of the Raft core, one group at a time and without a network."""
