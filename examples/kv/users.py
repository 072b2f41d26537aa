"""Who may do what: users with passwords, and rights over the keys that begin with a prefix.

Knows: how passwords are kept, which right a command needs. Must not know: protocols.

Invariants:
- A password is kept as salted scrypt, never as itself. Checking one takes about 50 ms of a core and 16 MiB,
  on purpose; whoever asks does so in a thread, a few at a time.
- A user whose prefixes do not cover every key may use no command that speaks of all keys (KEYS, FLUSHALL).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from examples.kv.commands import Args, find, keys_of
from examples.kv.commands.table import Command
from examples.kv.replies import Refused

COST, BLOCK, PARALLEL = 2**14, 8, 1
SALT_BYTES, KEY_BYTES = 16, 32
PASSWORD_BYTES_MAX = 1024

HASH = re.compile(r"scrypt:([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
RIGHT = re.compile(r"(read|write) (\S+)|admin")

NO_KEY = "NOPERM this user has no permissions to access one of the keys used as arguments"

WALKS = frozenset({b"KEYS", b"SCAN", b"RANDOMKEY", b"DBSIZE", b"FLUSHALL", b"FLUSHDB"})
"""Commands that name no key and tell of all, or change all."""


def hashed(password: str, salt: bytes | None = None) -> str:
    """A password as a configuration keeps it."""
    if not 1 <= len(password.encode()) <= PASSWORD_BYTES_MAX:
        raise ValueError(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes; this has {len(password.encode())}")
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    key = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCK, p=PARALLEL, dklen=KEY_BYTES)
    return f"scrypt:{b64encode(salt).decode()}:{b64encode(key).decode()}"


def kept(password: str) -> tuple[bytes, bytes] | None:
    """The salt and the key of what `hashed` has made; None: of no such text, also of one that was cut."""
    match = HASH.fullmatch(password)
    try:
        salt, key = (b64decode(part, validate=True) for part in match.groups()) if match else (b"", b"")
    except ValueError:
        return None
    return (salt, key) if (len(salt), len(key)) == (SALT_BYTES, KEY_BYTES) else None


@dataclass(frozen=True, slots=True)
class User:
    """A name, and what it may do."""

    name: str
    password: str
    """As `hashed` makes it."""
    reads: tuple[bytes, ...] = ()
    """Prefixes of keys; an empty one is all keys."""
    writes: tuple[bytes, ...] = ()
    """Who may write a key may read it."""
    admin: bool = False
    """May look at, and end, other clients and this server, and do all that speaks of all keys."""

    @property
    def unlimited(self) -> bool:
        """Is there nothing to check?"""
        return self.admin and b"" in self.writes

    def check(self, args: Args) -> None:
        """Raise Refused, in Redis's words, where the user may not run this."""
        if self.unlimited:
            return
        command = find(args)
        name = command.name.partition(b"|")[0]
        if name in WALKS and b"" not in (self.writes if command.writes else self.readable):
            raise not_allowed(command)
        allowed = self.writes if command.writes else self.readable
        if not allowed:
            raise not_allowed(command)
        if not all(key.startswith(allowed) for key in keys_of(args)):
            raise Refused(NO_KEY)

    def check_read(self, keys: Args) -> None:
        """Raise Refused where the user may not read all of these keys."""
        if not all(key.startswith(self.readable) for key in keys):
            raise Refused(NO_KEY)

    @property
    def readable(self) -> tuple[bytes, ...]:
        """What may be read."""
        return self.reads + self.writes

    def check_admin(self, name: bytes) -> None:
        """Raise Refused for who is no admin."""
        if not self.admin:
            raise Refused(b"NOPERM this user has no permissions to run the '%b' command" % name.lower())


EVERYBODY = User("default", "", writes=(b"",), admin=True)
"""Where there are no users, whoever gets a connection may do everything."""


def not_allowed(command: Command) -> Refused:
    """The user may not run this at all."""
    name = command.name.lower()
    return Refused(b"NOPERM this user has no permissions to run the '%b' command" % name)


def parse_user(name: str, password: str, rights: Sequence[str]) -> User:
    """A user of a configuration; ValueError names what is wrong and what is allowed."""
    if not name or not name.isprintable() or len(name) > 64:
        raise ValueError(f"{name!r} is no name of a user; allowed are 1 to 64 printable characters")
    if kept(password) is None:
        raise ValueError(
            "the password is not hashed; allowed is what `python -m examples.kv password` prints"
        )
    found: dict[str, list[bytes]] = {"read": [], "write": []}
    admin = False
    for right in rights:
        match = RIGHT.fullmatch(right)
        if match is None or ("*" in (prefix := match[2] or "")[:-1]):
            raise ValueError(
                f"{right!r} is no right; allowed are 'read PREFIX*', 'write PREFIX*', 'admin' (*: all)"
            )
        if match[1] is None:
            admin = True
        elif not prefix.endswith("*"):
            raise ValueError(f"{right!r}: a prefix ends with *")
        else:
            found[match[1]].append(prefix[:-1].encode())
    return User(name, password, tuple(found["read"]), tuple(found["write"]), admin)


class Users:
    """All users of a store."""

    def __init__(self, users: Sequence[User]) -> None:
        self._users = {user.name: user for user in users}
        self._nobody = hashed("nobody", bytes(SALT_BYTES))

    @property
    def everybody(self) -> User | None:
        """Whom a connection belongs to before it says who it is; None: it has to."""
        return None if self._users else EVERYBODY

    def verify(self, name: str, password: bytes) -> User | None:
        """The user of that name with that password. Blocks for about 50 ms, for unknown names too."""
        user = self._users.get(name)
        found = kept(self._nobody if user is None else user.password)
        assert found is not None, "was checked when it was configured"
        salt, key = found
        given = hashlib.scrypt(
            password[:PASSWORD_BYTES_MAX], salt=salt, n=COST, r=BLOCK, p=PARALLEL, dklen=len(key)
        )
        return user if hmac.compare_digest(given, key) and user is not None else None
