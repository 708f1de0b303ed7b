"""What waits to be decided: a run of which there is much must not keep others waiting. It knows no engine."""

from __future__ import annotations

from collections import OrderedDict, deque

from stepwire_executor.core.inputs import (
    BodyFailed,
    BodyReturned,
    ChildEnded,
    EventMatched,
    EventsSent,
    Input,
    RunCancelled,
    StepFailed,
    StepsCancelled,
    StepsFound,
    StepSucceeded,
)

MOST_A_TURN = 32
"""Steps and reports that are decided at once, about: whatever comes next waits for no more than these."""

OF_RUNS = (
    StepSucceeded,
    StepsFound,
    StepFailed,
    BodyReturned,
    BodyFailed,
    StepsCancelled,
    EventMatched,
    ChildEnded,
    RunCancelled,
)
"""What concerns one run alone."""


class Inbox:
    """Inputs, of which runs take turns; those of one run stay in the order in which they came, and so do events.

    What concerns a worker as a whole is decided after all that came before it, and before all that came after it.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._lanes: deque[OrderedDict[str, deque[Input]]] = deque([OrderedDict()])
        """By run, "" for events; an input that stands between others has lanes of its own."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, input_: Input) -> None:
        """Queue an input."""
        self._count += 1
        if isinstance(input_, OF_RUNS):
            self._lane(input_.run_id).append(input_)
        elif isinstance(input_, EventsSent):
            self._lane("").append(input_)
        else:
            self._lanes.append(OrderedDict({"": deque((input_,))}))
            self._lanes.append(OrderedDict())

    def _lane(self, run_id: str) -> deque[Input]:
        lanes = self._lanes[-1]
        if run_id not in lanes:
            lanes[run_id] = deque()
        return lanes[run_id]

    def take(self) -> list[Input]:
        """Take what is to be decided next."""
        taken: list[Input] = []
        room = MOST_A_TURN
        while room > 0 and self._count:
            lanes = self._lanes[0]
            if not lanes:
                self._lanes.popleft()
                continue
            run_id, lane = lanes.popitem(last=False)
            input_ = lane.popleft()
            if lane:
                lanes[run_id] = lane
            taken.append(input_)
            self._count -= 1
            room -= len(input_.steps) or 1 if isinstance(input_, StepsFound) else 1
        return taken
