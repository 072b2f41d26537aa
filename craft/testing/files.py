"""A simulated directory: files that grow in a page cache over a platter, and names that are journalled.

Knows what was written, what was synced, and what a kill or a power cut leaves of it. The snapshot store
works on it as on a real directory (`craft.storage.snapshots.files`).

Invariants
- A kill takes nothing. A power cut leaves of each file what was synced of it and some of the rest, whose
  end may be garbage; and of the changes of names since the last sync of names a beginning, in their order,
  as journals do.
- All chance comes from a generator of its own: worlds without snapshots draw nothing from it.
"""

from __future__ import annotations

import errno
import random


class PowerLost(Exception):
    """The server that was doing this is gone: nobody may catch it but who cut the power."""


class _Inode:
    """A file, whatever its name."""

    def __init__(self) -> None:
        self.content = bytearray()  # in the page cache
        self.synced = b""  # on the platter


class SimulatedFiles:
    """One server's directory. It outlives the server's incarnations."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._files: dict[str, _Inode] = {}
        self._names_synced: dict[str, _Inode] = {}
        self._journal: list[dict[str, _Inode]] = []  # the names after each change since their last sync
        self.full = False
        self.steps_left: int | None = None  # so many changes are carried out, then the power goes

    # -- as a directory -----------------------------------------------------------------------------

    def names(self) -> list[str]:
        """What is there, sorted."""
        return sorted(self._files)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return len(self._found(name).content)

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Bytes from `offset` on."""
        return bytes(memoryview(self._found(name).content)[offset : offset + count])

    def create(self, name: str) -> None:
        """An empty file."""
        self._step(grows=True)
        self._files[name] = _Inode()
        self._journal.append(dict(self._files))

    def append(self, name: str, data: bytes) -> None:
        """Bytes at the end."""
        self._step(grows=True)
        self._found(name).content.extend(data)

    def truncate(self, name: str, size: int) -> None:
        """Drop what is behind `size`. It is durable at once: what comes back of it would be written again."""
        self._step()
        inode = self._found(name)
        del inode.content[size:]
        inode.synced = inode.synced[:size]

    def sync(self, name: str) -> None:
        """Make its bytes durable."""
        self._step()
        inode = self._found(name)
        inode.synced = bytes(inode.content)

    def rename(self, name: str, new_name: str) -> None:
        """Another name."""
        self._step()
        self._files[new_name] = self._found(name)
        del self._files[name]
        self._journal.append(dict(self._files))

    def remove(self, name: str) -> None:
        """Gone."""
        self._step()
        self._found(name)
        del self._files[name]
        self._journal.append(dict(self._files))

    def sync_names(self) -> None:
        """Make the names durable."""
        self._step()
        self._names_synced, self._journal = dict(self._files), []

    def _found(self, name: str) -> _Inode:
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, f"there is no file {name}")
        return self._files[name]

    def _step(self, *, grows: bool = False) -> None:
        """One change. It may be the one before which the power goes."""
        if self.steps_left is not None:
            if not self.steps_left:
                raise PowerLost
            self.steps_left -= 1
        if grows and self.full:
            raise OSError(errno.ENOSPC, "no space left on device")

    # -- crashes and decay --------------------------------------------------------------------------

    def cut_power(self) -> None:
        """What was not synced is gone, or partly there, or garbage."""
        self.steps_left = None
        if not self._files and not self._journal:
            return
        moments = [self._names_synced, *self._journal]
        self._files = dict(self._rng.choice(moments))
        for name in sorted(self._files):
            self._lose_tail(self._files[name])
        self._names_synced, self._journal = dict(self._files), []

    def _lose_tail(self, inode: _Inode) -> None:
        unsynced = len(inode.content) - len(inode.synced)
        if unsynced > 0:
            kept = len(inode.synced) + self._rng.randint(0, unsynced)
            garbage = self._rng.randint(0, kept - len(inode.synced)) if self._rng.random() < 0.3 else 0
            inode.content = inode.content[: kept - garbage] + bytes(garbage)
        inode.synced = bytes(inode.content)

    def flip(self, rng: random.Random, *, ending: str = "") -> str | None:
        """One bit of one file changes, on the platter and in the cache; `ending`: of one that is called so.

        Says which, None where there is none.
        """
        names = [name for name in self.names() if self._files[name].content and name.endswith(ending)]
        if not names:
            return None
        name = rng.choice(names)
        inode = self._files[name]
        bit = rng.randrange(8 * len(inode.content))
        inode.content[bit // 8] ^= 1 << bit % 8
        if bit // 8 < len(inode.synced):
            inode.synced = bytes(inode.content[: len(inode.synced)])
        return f"bit {bit} of {name} is flipped"
