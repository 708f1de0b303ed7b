"""Reads a scenario, plays it against the core, and writes what the core decides below each line.

A transcript is a text. Its lines at the left margin say what happens, in the contract's words; the indented lines say
what each decision writes and sends: `early` leaves before the commit, `row` is the commit, `late` leaves after it.
A line that begins with `&` is decided together with the line before it. `VERBS` lists what can happen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import (
    Event,
    EventKey,
    Failure,
    Function,
    FunctionOptions,
    Retry,
    Run,
    Step,
    StepKey,
    StepKind,
    StepState,
    WaitSpec,
)
from stepwire_core.state import EPOCH_BITS
from tests.core.world import START, World

OPTION = re.compile(r"(\w+)=(\S*)")
FENCES = ("fence", "invocation", "eager_fence", "current_fence", "number_of_lookup")
HIDDEN = ("labels", "digest", "stream", "reply", "identity", "since", "run_ids", "taken", "app")


class ScenarioError(Exception):
    """A line of a scenario that can't be played."""


def play(text: str) -> str:
    """Return the transcript of a scenario, or of a transcript played again. Raises ScenarioError."""
    scenario, written, batch = Scenario(), list[str](), list[str]()
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        written.append(line)
        if not line.strip() or line.startswith("#"):
            continue
        batch.append(line.removeprefix("& "))
        if following.startswith("& "):
            continue
        try:
            scenario.say(batch)
        except (LookupError, ValueError, AssertionError, StopIteration) as error:
            raise ScenarioError(f"{line!r}: {type(error).__name__}: {error}") from error
        written += [f"    {each}" for each in scenario.heard]
        batch = []
    return "\n".join(written).rstrip() + "\n"


class Scenario:
    """A core that is told things by lines of text. `heard` is what it decided since the last line."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._world = World(bare=True)
        self._world.on_decision = self._write_down
        self._runs: list[str] = []
        self._events: dict[EventKey, Event] = {}
        self._started: dict[tuple[str, StepKey], c.StartAttempt] = {}
        self._lookups: dict[str, c.FindEvents] = {}
        self._said: list[i.Input] = []

    def say(self, lines: Sequence[str]) -> None:
        """Play lines, all of them in one decision."""
        self.heard, inputs = [], list[i.Input]()
        for line in lines:
            verb, _, rest = line.partition(" ")
            if verb not in VERBS:
                raise ScenarioError(f"{line!r}: no verb of {', '.join(VERBS)}")
            said, _, listed = rest.partition(": ")
            words, steps = OPTION.sub("", said).split(), [each.strip() for each in listed.split(",") if listed]
            options = dict(OPTION.findall(said))
            told = VERBS[verb](self, words, options, steps)
            inputs += [] if told is None else [told]
        self._said = inputs
        if inputs:
            self._world.tell(*inputs)

    # What happens.

    def function(self, words: list[str], options: dict[str, str], _: list[str]) -> None:
        """`function NAME on EVENT [retries=N] [timeout=SECONDS] [backoff=SECONDS]`."""
        retry = None
        if "retries" in options:
            retry = Retry(int(options["retries"]), float(options.get("backoff", "1")))
        timeout = float(options["timeout"]) if "timeout" in options else None
        given = FunctionOptions(words[0], tuple(words[2:]), retry, timeout)
        self._world.state.register(Function("app", given, "", START))

    def limit(self, _: list[str], options: dict[str, str], __: list[str]) -> None:
        """`limit NAME=NUMBER`: a setting of the executor; before anything else."""
        limits = replace(self._world.limits, **{name: int(value) for name, value in options.items()})
        self._world.limits = self._world.state.limits = limits

    def hello(self, words: list[str], options: dict[str, str], steps: list[str]) -> i.Input:
        """`hello WORKER [slots=N] [functions=f,g] [max_invocations=N] [eager] [resumes=WORKER]: RUN/STEP@FENCE, …`."""
        return self._world.hello(
            words[0],
            slots=int(options.get("slots", "10")),
            functions=tuple(filter(None, options.get("functions", "f").split(","))),
            max_invocations=int(options.get("max_invocations", "100")),
            app_version=options.get("version", ""),
            resume_session=options.get("resumes", ""),
            instance_id=f"i-{options.get('resumes', words[0])}",
            eager="eager" in words,
            in_hand=[self._attempt(each) for each in steps],
        )

    def send(self, words: list[str], options: dict[str, str], _: list[str]) -> i.Input:
        """`send EVENT as ID [FIELD=VALUE …]`."""
        data = json.dumps(options).encode()
        event = Event(words[2], words[0], data, self._world.wall, digest=words[0] + data.decode())
        known = {event.key: self._events[event.key]} if event.key in self._events else {}
        return i.EventsSent([event], "reply", known)

    def found(self, words: list[str], _: dict[str, str], steps: list[str]) -> i.Input:
        """`found RUN [more]: STEP, …`: the lead reports steps; with `more` its body still runs."""
        run_id = self._run(words[0])
        lead = self._world.state.runs[run_id].lead
        assert lead is not None, "the run has no lead"
        new = [self._new_step(each) for each in steps]
        return i.StepsFound(lead.session_id, run_id, lead.fence, lead.sent, new, "more" not in words)

    def step_run(self, words: list[str], _: dict[str, str], __: list[str]) -> i.Input:
        """`step_run RUN/STEP[@FENCE] [from WORKER]`."""
        return i.StepRun(*self._reported(words), b"out", 3, 0.0)

    def step_failed(self, words: list[str], options: dict[str, str], _: list[str]) -> i.Input:
        """`step_failed RUN/STEP[@FENCE] [from WORKER] with TYPE [final] [retry_after=SECONDS]`."""
        return i.StepFailed(*self._reported(words), self._failure(words, options), 0.0)

    def run_finished(self, words: list[str], _: dict[str, str], __: list[str]) -> i.Input:
        """`run_finished RUN`."""
        lead = self._lead(words[0])
        return i.RunFinished(lead.session_id, lead.run_id, lead.fence, b"done", 4)

    def run_failed(self, words: list[str], options: dict[str, str], _: list[str]) -> i.Input:
        """`run_failed RUN with TYPE [final]`."""
        lead = self._lead(words[0])
        return i.RunFailed(lead.session_id, lead.run_id, lead.fence, self._failure(words, options))

    def steps_cancelled(self, words: list[str], _: dict[str, str], steps: list[str]) -> i.Input:
        """`steps_cancelled RUN: STEP, …`: the body gives steps up."""
        lead = self._lead(words[0])
        return i.StepCancelled(lead.session_id, lead.run_id, lead.fence, [key_of(each) for each in steps])

    def cancel(self, words: list[str], _: dict[str, str], __: list[str]) -> i.Input:
        """`cancel RUN [REASON]`."""
        return i.RunCancelled(self._run(words[0]), " ".join(words[1:]), "reply")

    def stream_lost(self, words: list[str], _: dict[str, str], __: list[str]) -> i.Input:
        """`stream_lost WORKER`."""
        return i.StreamLost(words[0], self._world.state.sessions[words[0]].stream)

    def draining(self, words: list[str], _: dict[str, str], steps: list[str]) -> i.Input:
        """`draining WORKER [done]: RUN/STEP, …`: it gives these attempts back."""
        return i.Draining(words[0], [self._attempt(each) for each in steps], "done" in words)

    def invocation_dropped(self, words: list[str], _: dict[str, str], steps: list[str]) -> i.Input:
        """`invocation_dropped RUN: RUN/STEP, …`: the lead's worker lets go of it, and gives these attempts back."""
        lead = self._lead(words[0])
        return i.Evicted(lead.session_id, lead.run_id, lead.fence, [self._attempt(each) for each in steps])

    def event_matched(self, words: list[str], _: dict[str, str], __: list[str]) -> i.Input:
        """`event_matched RUN by ID`."""
        event = self._event(words[2])
        return i.EventMatched(self._run(words[0]), event.name, self._found_event(event))

    def looked_up(self, words: list[str], _: dict[str, str], steps: list[str]) -> i.Input:
        """`looked_up RUN: ID, …`: the answer to the run's newest FindEvents."""
        run_id = self._run(words[0])
        asked = self._lookups[run_id]
        events = [self._found_event(self._event(each)) for each in steps if each != "nothing"]
        return i.EventsLookedUp(run_id, asked.event_name, asked.number, events, self._world.state.position, False)

    def wait(self, words: list[str], _: dict[str, str], __: list[str]) -> i.Input:
        """`wait SECONDS`: time passes on both clocks."""
        self._world.wall += float(words[0])
        self._world.mono += float(words[0])
        return i.Tick()

    def clock_set(self, words: list[str], _: dict[str, str], __: list[str]) -> i.Input:
        """`clock_set SECONDS`: somebody sets the time of day forward, or back."""
        self._world.wall += float(words[0])
        return i.Tick()

    def drain(self, _: list[str], __: dict[str, str], ___: list[str]) -> i.Input:
        """`drain`: the executor is told to stop."""
        return i.ExecutorDraining()

    def crash(self, _: list[str], __: dict[str, str], ___: list[str]) -> None:
        """`crash`: the executor is killed and starts again, from its rows."""
        self._started.clear()
        self._world.crash()

    def why(self, words: list[str], _: dict[str, str], __: list[str]) -> None:
        """`why RUN`: what it waits for."""
        self.heard += [self._short(text) for text in self._world.why_text(self._run(words[0]))]

    # What names stand for.

    def _run(self, name: str) -> str:
        return self._runs[int(name.removeprefix("run")) - 1]

    def _name(self, run_id: str) -> str:
        if run_id not in self._runs:
            self._runs.append(run_id)
        return f"run{self._runs.index(run_id) + 1}"

    def _lead(self, run: str) -> Any:
        lead = self._world.state.runs[self._run(run)].lead
        assert lead is not None, "the run has no lead"
        return lead

    def _event(self, id_: str) -> Event:
        return next(event for event in self._events.values() if event.id == id_)

    def _attempt(self, text: str) -> i.AttemptRef:
        """Read `RUN/STEP@FENCE`; without a fence it is the attempt that was started last."""
        place, _, fence = text.partition("@")
        run, _, step = place.partition("/")
        run_id, key = self._run(run), key_of(step)
        if fence:
            epoch, _, number = fence.partition(".")
            return i.AttemptRef(run_id, key, (int(epoch) << EPOCH_BITS) + int(number))
        return i.AttemptRef(run_id, key, self._started[run_id, key].fence)

    def _reported(self, words: list[str]) -> tuple[str, str, StepKey, int]:
        at = self._attempt(words[0])
        worker = words[words.index("from") + 1] if "from" in words else ""
        return worker or self._started[at.run_id, at.key].session_id, at.run_id, at.key, at.fence

    def _failure(self, words: list[str], options: dict[str, str]) -> Failure:
        after = float(options["retry_after"]) if "retry_after" in options else None
        return Failure(words[words.index("with") + 1], "bad", retryable="final" not in words, retry_after=after)

    def _new_step(self, text: str) -> i.StepPlanned:
        """Read `NAME` (a closure) or `KIND NAME …`; see `KINDS`."""
        options, words = dict(OPTION.findall(text)), OPTION.sub("", text).split()
        kind = words.pop(0) if words[0] in KINDS else "run"
        given: dict[str, Any] = {}
        if "retries" in options:
            given["retry"] = Retry(int(options.pop("retries")), float(options.pop("backoff", "1")))
        for option, field in (("timeout", "attempt_timeout"), ("step_timeout", "step_timeout"), ("for", "delay")):
            if option in options:
                given[field] = float(options.pop(option))
        key = key_of(words[0])
        if "eager" in words:
            lead = next(
                loaded.lead for loaded in self._world.state.runs.values() if loaded.lead and loaded.lead.eager_fence
            )
            given["eager_fence"] = lead.eager_fence
        if kind == "wait":
            given["wait"] = WaitSpec(json.dumps(list(options)), json.dumps(list(options.values())))
        if kind in ("wait", "task", "invoke"):
            given["target"] = words[1]
        if kind == "send":
            given["events"] = [
                Event(each, words[1], b"{}", self._world.wall, digest=each) for each in words[2:] or [f"{key}-1"]
            ]
            given["output"] = b"ids"
        return i.StepPlanned(key, KINDS[kind], source="f.py:1" if kind == "run" else "", **given)

    def _found_event(self, event: Event) -> i.FoundEvent:
        """Return an event as a search finds it, with its values at the paths that anybody waits by."""
        data = json.loads(event.data or b"{}")
        waits = [wait.paths for wait in self._world.waits.values()]
        matches = {
            paths: json.dumps([data[field] for field in json.loads(paths)])
            for paths in waits
            if all(field in data for field in json.loads(paths))
        }
        return i.FoundEvent(event.position, event.id.encode(), matches)

    # What the core decides.

    def _write_down(self, batch: Sequence[i.Input], decision: c.Decision) -> None:
        if list(batch) != self._said and not isinstance(batch[0], i.RunsLoaded):
            self.heard.append(f"then   {' '.join(type(each).__name__ for each in batch)}")
        for event in decision.writes.events:
            self._events[event.key] = event
            for run_id in event.run_ids:
                self._name(run_id)
        for command in [*decision.early, *decision.commands]:
            if isinstance(command, c.StartAttempt):
                self._started[command.run.id, command.key] = command
            elif isinstance(command, c.FindEvents):
                self._lookups[command.run_id] = command
        self.heard += [f"early  {self._command(each)}" for each in decision.early]
        self.heard += [f"row    {each}" for each in self._rows(decision.writes)]
        self.heard += [
            f"late   {self._command(each)}" for each in decision.commands if not isinstance(each, c.FollowUp)
        ]
        for seen in decision.observations:
            if isinstance(seen, c.AttemptClosed):
                self.heard.append(
                    f"span   {self._name(seen.run.id)}/{seen.step.key} attempt {seen.number}: {seen.outcome}"
                )
        self.heard += [f"unload {self._name(run.id)}" for run in decision.unloaded if not run.state.ended]

    def _rows(self, writes: c.Writes) -> list[str]:
        rows = [f"event {self._short(event.id)} {event.name}" for event in writes.events]
        rows += [self._run_row(run, f" of {run.function_id}") for run in writes.new_runs.values()]
        rows += [self._run_row(run) for id_, run in writes.runs.items() if id_ not in writes.new_runs]
        rows += [self._step_row(at[0], step) for at, step in writes.new_steps.items()]
        rows += [self._step_row(at[0], step) for at, step in writes.steps.items() if at not in writes.new_steps]
        for failed in writes.failed_attempts:
            run = self._name(failed.run_id)
            rows.append(f"attempt {failed.number} of {run}#{failed.step_number}: {failed.failure.type}")
        rows += [f"function {function.options.id}" for function in writes.functions]
        rows += [f"function {id_} is forgotten" for _, id_ in writes.forgotten]
        rows += [
            f"wait {self._name(wait.run_id)}/{wait.key}: {wait.event_name} {wait.paths} {wait.match}"
            for wait in writes.new_waits.values()
        ]
        rows += [f"wait {self._name(run_id)}/{key} is over" for run_id, key in writes.ended_waits]
        return rows

    def _run_row(self, run: Run, of: str = "") -> str:
        row = f"{self._name(run.id)}{of}: {run.state.name}"
        if run.attempt > 1:
            row += f" attempt={run.attempt}"
        if run.retry_at is not None:
            row += f" retry_at={self._time(run.retry_at)}"
        if run.wake_at != 0 and not run.state.ended:
            row += f" wake_at={self._time(run.wake_at)}"
        return row + self._outcome(run.output, run.failure)

    def _step_row(self, run_id: str, step: Step) -> str:
        row = f"{self._name(run_id)}#{step.number} {step.kind.name} {step.key}: {step.state.name}"
        if step.attempt:
            row += f" attempt={step.attempt}"
        if step.sequence:
            row += f" sequence={step.sequence}"
        if step.due_at is not None and not step.state.ended:
            row += f" due_at={self._time(step.due_at)}"
        if step.child_run_id:
            row += f" child={self._name(step.child_run_id)}"
        outcome = self._outcome(step.output, step.failure) if step.state is not StepState.RUNNING else ""
        return row + outcome + " timed_out" * step.timed_out

    def _outcome(self, output: Any, failure: Failure | None) -> str:
        if failure is not None:
            return f" failure={failure.type}"
        return f" output={bytes(output).decode()}" if output else ""

    def _command(self, command: Any) -> str:
        """Write a command in a line, whose it is first."""
        to = f"to {command.session_id}: " if getattr(command, "session_id", "") else ""
        names = getattr(command, "_fields", None) or command.__slots__
        fields = [
            f"{name}={self._value(name, value)}"
            for name in names
            if name != "session_id" and name not in HIDDEN
            for value in [getattr(command, name)]
            if value not in ("", None, (), [], {}, 0, b"", False)
        ]
        return f"{to}{type(command).__name__} {' '.join(fields)}".rstrip()

    def _value(self, name: str, value: Any) -> str:
        if name in FENCES and isinstance(value, int):
            return self._fence(value)
        if name == "number" and isinstance(value, int) and value >> EPOCH_BITS:
            return self._fence(value)
        if isinstance(value, i.AttemptRef):
            return f"{self._name(value.run_id)}/{value.key}@{self._fence(value.fence)}"
        if isinstance(value, Run):
            return self._name(value.id)
        if isinstance(value, Event):
            return value.id
        if isinstance(value, Failure):
            return value.type
        if isinstance(value, Step):
            return f"{value.key}:{value.state.name}"
        if isinstance(value, c.Receipt):
            runs = ",".join(map(self._name, value.run_ids))
            return f"{value.event_id}->{runs or 'no run'}{' (duplicate)' * value.duplicate}"
        if isinstance(value, c.Wanted):
            return f"{value.match}>{value.after}"
        if isinstance(value, list | tuple) and not isinstance(value, StepKey):
            return "[" + " ".join(self._value("", each) for each in value) + "]"
        return self._short(str(value))

    def _fence(self, fence: int) -> str:
        return f"{fence >> EPOCH_BITS}.{fence & ((1 << EPOCH_BITS) - 1)}"

    def _time(self, time: float | None) -> str:
        return "never" if time is None else f"+{time - START:g}"

    def _short(self, text: str) -> str:
        for run_id in self._runs:
            text = text.replace(run_id, self._name(run_id))
        return re.sub(r"\b\d{13,}\b", lambda found: self._fence(int(found[0])), text)


KINDS = {
    "run": StepKind.CLOSURE,
    "task": StepKind.TASK,
    "sleep": StepKind.SLEEP,
    "wait": StepKind.WAIT_FOR_EVENT,
    "invoke": StepKind.INVOKE,
    "send": StepKind.SEND_EVENTS,
}
"""`run NAME`, `task NAME TASK`, `sleep NAME for=SECONDS`, `wait NAME EVENT for=SECONDS [FIELD=VALUE …]`,
`invoke NAME APP/FUNCTION`, `send NAME EVENT [ID …]`; all with [retries=N backoff=S timeout=S step_timeout=S]."""


def key_of(text: str) -> StepKey:
    """Read `NAME` or `NAME:INDEX`."""
    name, _, index = text.partition(":")
    return StepKey(name, int(index or 0))


Verb = Callable[[Scenario, list[str], dict[str, str], list[str]], i.Input | None]
VERBS: dict[str, Verb] = {
    verb.__name__: verb
    for verb in (
        Scenario.function,
        Scenario.limit,
        Scenario.hello,
        Scenario.send,
        Scenario.found,
        Scenario.step_run,
        Scenario.step_failed,
        Scenario.run_finished,
        Scenario.run_failed,
        Scenario.steps_cancelled,
        Scenario.cancel,
        Scenario.stream_lost,
        Scenario.draining,
        Scenario.invocation_dropped,
        Scenario.event_matched,
        Scenario.looked_up,
        Scenario.wait,
        Scenario.clock_set,
        Scenario.drain,
        Scenario.crash,
        Scenario.why,
    )
}
