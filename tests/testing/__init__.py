"""Tests of the simulator and of what judges its runs."""
