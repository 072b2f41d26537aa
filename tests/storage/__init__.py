"""Tests of the disks."""
