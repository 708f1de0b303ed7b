"""What is written into the executor's log, and what is not."""

from __future__ import annotations

import io
import logging

import pytest
from grpc._cython.cygrpc import ExecuteBatchError  # type: ignore[import-not-found]

from stepwire_executor import logs


@pytest.mark.parametrize(
    ("error", "is_written"),
    [(ValueError("a fault of ours"), True), (ExecuteBatchError("Failed", ()), False)],
    ids=["a fault of ours", "a call that its client ended"],
)
def test_a_call_that_its_client_ended_as_it_was_answered_leaves_no_traceback(
    error: Exception, is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    logs.set_up("info", as_json=False)
    try:
        raise error
    except Exception:
        logging.getLogger("grpc._cython.cygrpc").exception("raised by servicer method [%s]", "/stepwire.v1/GetRun")
    assert ("Traceback" in written.getvalue()) is is_written
    assert ("GetRun" in written.getvalue()) is is_written
