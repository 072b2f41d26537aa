"""Who asks: HTTP's Basic authentication.

Knows: the Authorization header. Must not know: what is asked for.

Reference: RFC 7617.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable

from examples.kv.http.problems import AGAIN, Problem
from examples.kv.passwords import Passwords, TooMany
from examples.kv.users import User, Users

CHALLENGE = {"www-authenticate": 'Basic realm="kv", charset="UTF-8"'}


class Guard:
    """Tells users from their headers."""

    def __init__(self, users: Users, *, waiting_max: int, clock: Callable[[], float]) -> None:
        self._users = users
        self._passwords = Passwords(users, waiting_max=waiting_max, clock=clock)

    @property
    def checks(self) -> int:
        """Passwords checked so far."""
        return self._passwords.checks

    async def identify(self, authorization: str | None, address: str) -> User:
        """Who sends this header. Raises Problem."""
        everybody = self._users.everybody
        if everybody is not None:
            return everybody
        try:
            user = await self._passwords.check(*credentials(authorization), address)
        except TooMany:
            raise Problem("too-many-passwords", "come again in a second", headers=AGAIN) from None
        if user is None:
            raise Problem("who-are-you", "there is no such user, or the password is wrong", headers=CHALLENGE)
        return user


def credentials(authorization: str | None) -> tuple[str, bytes]:
    """The name and password of a header."""
    if authorization is None:
        raise Problem("who-are-you", "the header Authorization is missing", headers=CHALLENGE)
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        name, colon, password = b64decode(encoded.strip(), validate=True).partition(b":")
        if not colon:
            raise ValueError
        return name.decode(), password
    except ValueError:
        raise Problem("who-are-you", "the header Authorization is no Basic one", headers=CHALLENGE) from None
