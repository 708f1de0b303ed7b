"""Coroutines that hash by a number: sets of them have an order that replays can repeat."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

T = TypeVar("T", covariant=True)


class NumberedCoroutine(Coroutine[Any, Any, T]):
    """A coroutine whose hash is its number. Native ones hash by their address, which each process gives anew."""

    __slots__ = ("_number",)

    _number: int
    """Set by who makes it."""

    runs_user_code: ClassVar[bool] = True
    """Whether code of the user's runs in it, which may refuse to end."""

    def __hash__(self) -> int:
        return self._number
