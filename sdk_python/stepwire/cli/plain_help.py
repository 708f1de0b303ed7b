"""Help in which a column says what an option takes (N, DURATION, FILE), and nothing where there is nothing to say."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command whose help names no Python types."""

    def get_params(self, ctx: Any) -> Any:
        """Give the parameters; typer asks for them when it writes the help."""
        return plain(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Give what stands behind the command in its line of usage."""
        return [_piece(each) for each in super().collect_usage_pieces(ctx)]


class PlainGroup(TyperGroup):
    """The same for a command that has others below it."""

    def get_params(self, ctx: Any) -> Any:
        """Give the parameters; typer asks for them when it writes the help."""
        return plain(super().get_params(ctx))


def plain(parameters: list[Any]) -> list[Any]:
    """Have flags say nothing of a value, arguments nothing but their name, and options what they take."""
    for each in parameters:
        kind = getattr(each, "display_type_rich", None)
        if each.param_type_name == "argument" or getattr(each, "is_flag", False):
            each.display_type_rich = lambda ctx: None
        elif kind is not None and not hasattr(each, "kind_of_typer"):
            each.kind_of_typer = kind
            each.display_type_rich = lambda ctx, kind=kind: in_words(kind(ctx))
    return parameters


def _piece(piece: str) -> str:
    """Take off typer's braces around an argument, and brackets around one that has its own."""
    if piece.startswith("[") and piece.endswith("...]..."):
        return piece[1:-4]
    return piece.strip("{}")


def in_words(kind: str | None) -> str | None:
    """Write typer's word for what an option takes as people do: "<int range>" is N, "<list[a|b]>" is a|b."""
    if kind is None or not kind.startswith("<"):
        return kind
    inner = kind.strip("<>").removeprefix("list[").removesuffix("]")
    return "N" if inner.startswith(("int", "float")) else inner
