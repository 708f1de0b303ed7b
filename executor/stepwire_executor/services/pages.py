"""Pages of answers: how many a page has, and the tokens that say where the next one begins."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re

from stepwire_executor.form import FormError

PAGE_BYTES = 1 << 20
"""Size from which on a page takes nothing more, and a message of a stream no further part; one alone may be larger."""
ANSWER_BYTES = (4 << 20) - (64 << 10)
"""Size of an answer that every client takes: gRPC's own default is 4 MiB. What does not fit comes with a later page."""
LONGEST_TOKEN = 1_024
"""Ours are shorter; what is longer is not even decoded."""


def page_size(asked: int, default: int, most: int) -> int:
    """Give the size of a page; raises FormError if too much is asked for."""
    if asked > most:
        raise FormError("page_size", f"{asked}, but a page has at most {most}")
    return asked or default


def write_token(place: str, scope: str) -> str:
    """Make a page token that is good for one filter only."""
    mark = hashlib.blake2b(scope.encode(), digest_size=6).hexdigest()
    return base64.urlsafe_b64encode(f"{mark}{place}".encode()).decode()


def read_token(token: str, scope: str, form: re.Pattern[str]) -> str:
    """Read a page token whose place has a form; raises FormError if it is none, or one of another filter.

    Anybody can make a token, so that its mark is no reason to believe what it says.
    """
    text = ""
    if len(token) <= LONGEST_TOKEN:
        with contextlib.suppress(ValueError):
            text = base64.urlsafe_b64decode(token.encode()).decode()
    place = text[12:]
    if not form.fullmatch(place) or token != write_token(place, scope):
        raise FormError("page_token", "not a token of this list and filter: take it from the answer before")
    return place
