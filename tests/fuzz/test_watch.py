"""What counts as a fault of ours in a log, and what does not."""

from __future__ import annotations

import pytest

from tests.fuzz.watch import is_of_user_code

USER_CODE = """\
2026-11-30 14:25:02.682Z WARNING attempt 1 of step 'a' failed: KeyError: 'seconds' app=shop
  Traceback (most recent call last):
    File "/srv/app.py", line 295, in block
      return value["seconds"]
  KeyError: 'seconds'"""
OURS_AS_IF_USER_CODE = """\
2026-11-30 14:25:02.682Z WARNING attempt 1 of the body failed: KeyError: 'seconds' app=shop
  Traceback (most recent call last):
    File "/srv/app.py", line 295, in body
      await step.run("a", work)
    File "/usr/lib/python3/site-packages/stepwire/step.py", line 7, in run
      return self.known["seconds"]
  KeyError: 'seconds'"""
REFUSED_BY_US = """\
2026-11-30 14:25:02.682Z WARNING attempt 1 of step 'a' failed: EncodingError: it can't be read app=shop
  Traceback (most recent call last):
    File "/usr/lib/python3/site-packages/stepwire/values.py", line 78, in decode
      return from_json(data)
  stepwire.errors.EncodingError: it can't be read"""
GAP = """\
2026-11-30 14:25:02.682Z ERROR run r can't go on in this worker
  Traceback (most recent call last):
    File "/usr/lib/python3/site-packages/stepwire/replay/mover.py", line 127, in _go_on
      raise ValueError("journal entry 5 follows 0: there is a gap")
  ValueError: journal entry 5 follows 0: there is a gap"""
UNKNOWN = GAP.replace("there is a gap", "list index out of range")


@pytest.mark.parametrize(
    ("record", "is_fine"),
    [(USER_CODE, True), (OURS_AS_IF_USER_CODE, False), (REFUSED_BY_US, True), (GAP, True), (UNKNOWN, False)],
    ids=["user code", "ours, as if it were user code", "refused by us", "a journal with a gap", "a fault in a replay"],
)
def test_only_a_failure_of_user_code_or_nonsense_of_the_executor_is_no_fault(record: str, is_fine: bool) -> None:
    assert is_of_user_code(record) is is_fine
