from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stepwire.cli import arguments
from stepwire.cli.exits import CommandError, ExitCode
from stepwire.cli.processes import check_target

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


class Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_data_is_json_text() -> None:
    assert arguments.json_data('{"a": [1, 2.5, null, "é"]}') == {"a": [1, 2.5, None, "é"]}


def test_data_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(b'\xef\xbb\xbf{"from": "a file with a byte order mark"}')
    assert arguments.json_data(f"@{path}") == {"from": "a file with a byte order mark"}


def test_data_comes_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"[1]"))
    assert arguments.json_data("@-") == [1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{'a': 1}", "--data is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ('{\n  "a": 1,\n  "b": x\n}', "at line 3, column 8, near '\"b\": x'"),
        ("", "Expecting value at line 1, column 1"),
        ("NaN", "NaN is no JSON number"),
        ('"\\ud800"', "lone surrogate"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "is not JSON"),
        ("@/no/such/file", "can't read /no/such/file: No such file or directory"),
    ],
)
def test_bad_data_is_explained_with_its_place(data: str, message: str) -> None:
    with pytest.raises(CommandError) as raised:
        arguments.json_data(data)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.code is ExitCode.USAGE


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b'"\xff"')
    with pytest.raises(CommandError, match="is not UTF-8: byte 1"):
        arguments.json_data(f"@{path}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1.5s", 1.5), ("250ms", 0.25), ("1h30m", 5400), ("2d", 172800), ("1w 1s", 604801)],
)
def test_durations_are_read(text: str, expected: float) -> None:
    assert arguments.seconds(text, "--since") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "soon", "1x", "-1h", "1h foo", "h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=r"--since .* is no duration"):
        arguments.seconds(text, "--since")


def test_an_instant_is_a_duration_ago_or_a_time() -> None:
    assert arguments.instant("1h", "--since", NOW) == NOW - timedelta(hours=1)
    assert arguments.instant("2030-01-01T10:00+02:00", "--since", NOW) == datetime(2030, 1, 1, 8, 0, tzinfo=UTC)
    with pytest.raises(CommandError, match="is no time"):
        arguments.instant("2030-13-01", "--since", NOW)
    with pytest.raises(CommandError, match="too long ago"):
        arguments.instant("99999999w", "--since", NOW)


def test_labels_are_pairs() -> None:
    assert arguments.labels(["zone=a", "note=x=y", "empty="]) == {"zone": "a", "note": "x=y", "empty": ""}
    with pytest.raises(CommandError, match="is no label"):
        arguments.labels(["zone"])


@pytest.mark.parametrize("target", ["flows:app", "shop.flows:app_2"])
def test_a_target_names_a_module_and_an_app(target: str) -> None:
    check_target(target)


@pytest.mark.parametrize("target", ["flows", "flows.py", "a/b.py:app", "flows:", ":app", "flows:a.b", "1:x"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(CommandError) as raised:
        check_target(target)
    assert raised.value.code is ExitCode.USAGE
