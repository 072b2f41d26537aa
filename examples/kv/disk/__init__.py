"""The store's data on a disk instead of in memory: larger than memory, and there again after a restart."""

from examples.kv.disk.machine import DurableKeyValue

__all__ = ["DurableKeyValue"]
