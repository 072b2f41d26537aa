"""The values of keys: strings and hashes, with the encoding that OBJECT ENCODING tells of.

Knows: when Redis changes a value's encoding. Must not know: keys, deadlines, commands.

Invariants:
- A string is `bytes`. Its encoding follows from its bytes, as after SET, unless its class says what became of
  it: `Raw` was changed in place (APPEND, SETRANGE), `Printed` is what INCRBYFLOAT prints.
- A string is never changed, only replaced. A hash is changed only in the epoch that it belongs to: a fork of
  an earlier epoch may still read it (`Editor.owned` of the keyspace copies it).
- A hash that has once outgrown the listpack stays a hashtable.

Reference: Redis 7.0, object.c, tryObjectEncoding(); t_hash.c, hashTypeSet(); its default limits.
"""

from __future__ import annotations

from typing import TypeAlias

from examples.kv.slots import Index

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

EMBEDDED_BYTES_MAX = 44
LISTPACK_FIELDS_MAX = 512
LISTPACK_BYTES_MAX = 64


class Raw(bytes):
    """A string that was changed in place."""

    __slots__ = ()


class Printed(bytes):
    """A number with a fraction, as it was printed: not encoded as an integer even where it is one."""

    __slots__ = ()


class Hash:
    """Fields and their values, in the order in which the fields came."""

    __slots__ = ("epoch", "fields", "index", "listpack")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.fields: dict[bytes, bytes] = {}
        self.listpack = True
        self.index: Index | None = None
        """Built by the first HSCAN of a hashtable."""

    def copy(self, epoch: int) -> Hash:
        """The same in another epoch, to be changed there."""
        copy = Hash(epoch)
        copy.fields = self.fields.copy()
        copy.listpack = self.listpack
        return copy

    def put(self, field: bytes, value: bytes) -> bool:
        """Set a field; was it new?"""
        new = field not in self.fields
        self.fields[field] = value
        if new and self.index is not None:
            self.index.add(field)
        if self.listpack and (
            len(self.fields) > LISTPACK_FIELDS_MAX or max(len(field), len(value)) > LISTPACK_BYTES_MAX
        ):
            self.listpack = False
        return new

    def remove(self, field: bytes) -> bool:
        """Remove a field; was it there?"""
        if self.index is not None:
            self.index.discard(field)
        return self.fields.pop(field, None) is not None

    def indexed(self) -> Index:
        """The fields by slot."""
        if self.index is None:
            self.index = Index(self.fields)
        return self.index


Value: TypeAlias = bytes | Hash


def type_name(value: Value | None) -> str:
    """What TYPE answers."""
    if value is None:
        return "none"
    return "hash" if isinstance(value, Hash) else "string"


def encoding(value: Value) -> bytes:
    """What OBJECT ENCODING answers."""
    if isinstance(value, Hash):
        return b"listpack" if value.listpack else b"hashtable"
    if isinstance(value, Raw):
        return b"raw"
    if to_int(value) is not None and not isinstance(value, Printed):
        return b"int"
    return b"embstr" if len(value) <= EMBEDDED_BYTES_MAX else b"raw"


def to_int(text: bytes) -> int | None:
    """The 64-bit integer of a text that is written as one prints it; None where it is not."""
    if len(text) > 20:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    # `int` also takes spaces, a plus sign, leading zeros and underscores; none of these is printed.
    return number if b"%d" % number == text and INT64_MIN <= number <= INT64_MAX else None
