"""A real executor in whose process something was altered first: a bound that is small, a loop that can be held up."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stepwire.testing import ExecutorProcess

MAIN = 'import runpy\nrunpy.run_module("stepwire_executor", run_name="__main__", alter_sys=True)\n'


class AlteredExecutor(ExecutorProcess):
    """Runs the lines of `before`, and then the executor as ever."""

    before = ""

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        _, _, _, *flags = super().command
        return [sys.executable, "-c", f"{self.before}\n{MAIN}", *flags]
