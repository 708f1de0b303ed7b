"""A file of tokens for a test, and the tokens themselves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

EVERYBODY = {
    "workers": (["*"], ["worker"]),
    "shop-workers": (["shop"], ["worker"]),
    "bank-workers": (["bank"], ["worker"]),
    "clients": (["*"], ["client"]),
    "shop-clients": (["shop"], ["client"]),
    "two-clients": (["shop", "bank"], ["client"]),
    "admins": (["*"], ["admin"]),
    "shop-admins": (["shop"], ["admin"]),
}


def secret(name: str) -> str:
    """Give the token with a name."""
    return f"the-token-of-{name}"


def entry(name: str, apps: list[str], roles: list[str]) -> str:
    """Write an entry of the file."""
    digest = hashlib.sha256(secret(name).encode()).hexdigest()
    values = {"name": name, "sha256": digest, "apps": apps, "roles": roles}
    return "[[token]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def write(file: Path, *left_out: str) -> Path:
    """Write the file with everybody in it but those left out."""
    entries = [entry(name, *rest) for name, rest in EVERYBODY.items() if name not in left_out]
    file.write_text("\n".join(entries))
    return file
