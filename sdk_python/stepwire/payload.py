"""The SDK's form of the contract's Payload: encoded bytes and how they are encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JSON = "json"
BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Payload:
    """One encoded value.

    `encoding` is "json" (UTF-8 JSON), "binary" (the bytes themselves) or a codec's own name; `metadata` is the codec's.
    """

    data: bytes
    encoding: str = JSON
    metadata: Mapping[str, str] = field(default_factory=dict)
