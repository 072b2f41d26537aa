"""Tests of the benchmark harness: what it counts, what it refuses, and that it ends what it started."""
