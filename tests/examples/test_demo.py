"""The demo, as `make demo` runs it; its exit code says whether a step was recorded twice or ran again for nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.demo", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)


def test_the_demo_summarises_a_text_through_a_failure_and_a_kill(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    sentence = "Sentence number {} says something about apples, bridges and the number {} of them in the valley."
    paragraphs = ["\n".join(sentence.format(n * 40 + k, k) for k in range(40)) for n in range(60)]
    text.write_text("\n\n".join(paragraphs))
    done = run_demo("--text", str(text))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each recorded exactly once: yes" in done.stdout
    assert "ConnectionError: injected by the demo" in done.stdout
    assert "WorkerLostError" in done.stdout


def test_a_text_that_does_not_exist_is_named() -> None:
    done = run_demo("--text", "/nowhere/at-all.txt")
    assert done.returncode == 2
    assert "there is no file /nowhere/at-all.txt" in done.stderr
