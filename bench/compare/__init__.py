"""The same load against craft and against what one would pick instead, side by side in one run."""

from bench.compare.comparison import EXPERIMENT

__all__ = ["EXPERIMENT"]
