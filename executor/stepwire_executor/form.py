"""What is wrong with the form of a message, and where."""

from __future__ import annotations


class FormError(ValueError):
    """Something in a message is not as the contract says. `field` is its path, like "events[3].data"."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
