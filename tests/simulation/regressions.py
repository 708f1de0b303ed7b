"""Bugs that the simulation has found, with the case that shows each, made small. All are mended, and stay so."""

from __future__ import annotations

from tests.simulation.cases import Case, Fault, RunCase

STUCK = {
    "seed 20015563: a lone step's plan came after what its body reported later, and the step ran twice": Case(
        20015563,
        (
            RunCase(
                "sim/program",
                [
                    "seq",
                    ["race", ["times", 3, ["send", "s3", 0]], ["sync", "s3", 0, False]],
                    ["limited", "s4", 0.01, 5.0],
                ],
                0.0,
            ),
        ),
        (),
        workers=1,
        slots=2,
    ),
    "seed 438363237: an attempt was kept for a replica whose run's other body had failed": Case(
        438363237,
        (
            RunCase(
                "sim/program",
                [
                    "parallel",
                    ["stubborn", "s1", 0.05],
                    ["exchange", "s2", 71370662, 300.0],
                    ["group", ["task", "s2", 0, False, 0.0], ["group", ["run", "s3", 0, False, 0.0], ["clumsy", 2]]],
                ],
                0.25438521815823045,
            ),
        ),
        (),
        workers=2,
        slots=2,
        most_invocations=1000,
    ),
    "seed 81: the engine never came to rest after a sleeping run had been cancelled": Case(
        81,
        (RunCase("sim/program", ["sleep", "s2", 12.0], 0.0), RunCase("sim/program", ["timer", 12.0], 0.0)),
        (Fault("cancel run", 0.07067174144774578, 3, 12.0),),
        workers=3,
        slots=1,
    ),
    "seed 471: a worker that died while its Hello was decided stayed connected for ever": Case(
        471,
        (RunCase("sim/program", ["send", "s1", 3], 1.3106522455359435),),
        (
            Fault("freeze executor", 0.028116174290826003, 3, 3.0),
            Fault("kill worker", 0.15103546839425028, 2, 3.0),
            Fault("kill worker", 0.5749570287338246, 0, 1.0),
        ),
        workers=1,
        slots=1,
    ),
    "seed 31940: two workers full of each other's replicas gave no run a lead any more": Case(
        31940,
        (
            RunCase(
                "sim/program",
                [
                    "parallel",
                    ["times", 3, ["run", "s1", 0, False, 0.0]],
                    ["limited", "s4", 1.0, 0.05],
                    ["send", "s5", 0],
                ],
                0.0,
            ),
            RunCase("sim/program", ["group", ["run", "s1", 0, False, 0.0], ["send", "s2", 2]], 1.4985938024210563),
            RunCase(
                "sim/program",
                [
                    "group",
                    ["limited", "s2", 0.01, 5.0],
                    ["task", "s2", 0, False, 0.0],
                    ["run", "s3", 0, False, 0.0],
                ],
                1.5656636217535476,
            ),
        ),
        (Fault("slow network", 0.6991003087354934, 3, 1.0), Fault("freeze executor", 2.811204366292422, 1, 0.05)),
        workers=2,
        slots=2,
        most_invocations=1,
    ),
    "seed 110: an attempt came to a worker before the cancellation that freed its slot": Case(
        110,
        (RunCase("sim/program", ["completed", ["limited", "s2", 1.0, 0.05], ["limited", "s4", 1.0, 5.0]], 0.0),),
        workers=1,
        slots=1,
    ),
    "seed 1622: an attempt was taken over though a life of the executor between had issued a newer one": Case(
        1622,
        (
            RunCase(
                "sim/program",
                [
                    "parallel",
                    ["run", "s1", 0, False, 0.0],
                    ["run", "s2", 0, False, 0.0],
                    ["run", "s2", 0, False, 0.0],
                ],
                0.0,
            ),
        ),
        (
            Fault("commit fails", 0.008392975763437073, 2, 12.0),
            Fault("commit fails", 0.11445813816491796, 2, 0.05),
            Fault("slow network", 0.14639808908187976, 2, 1.0),
        ),
        workers=2,
        slots=2,
    ),
    "seed 81607: an attempt that ran was given back with those that could not begin, and ran twice": Case(
        81607,
        (
            RunCase(
                "sim/program",
                [
                    "group",
                    ["run", "s3", 0, False, 6.0],
                    [
                        "gather",
                        ["seq", ["send", "s3", 3], ["clumsy", 1]],
                        ["run", "s4", 0, False, 0.0],
                        ["run", "s5", 0, False, 0.0],
                    ],
                ],
                0.0,
            ),
        ),
        workers=1,
        slots=2,
        most_invocations=1,
    ),
    "seed 91268: a worker kept a result that its Hello had no room for, and a later executor took it": Case(
        91268,
        (
            RunCase("sim/program", ["run", "s2", 0, False, 0.0], 0.0),
            RunCase(
                "sim/program",
                [
                    "group",
                    ["run", "s1", 0, False, 0.0],
                    ["task", "s1", 0, False, 0.05],
                    ["send", "s2", 1],
                    ["sync", "s3", 0, False],
                ],
                0.0,
            ),
        ),
        (
            Fault("commit fails", 0.009077445724764299, 0, 0.05),
            Fault("slow network", 0.1155543609037783, 3, 5.752825177911666),
            Fault("commit fails", 0.1913722318975336, 0, 0.05),
        ),
        workers=2,
        slots=1,
        most_invocations=1,
    ),
    "seed 8009075: a lead used its leave for a step that the worker of an earlier life brought, and got it again": Case(
        8009075,
        (
            RunCase(
                "sim/program-sync",
                ["seq", ["run", "s1", 0, False, 0.05], ["run", "s2", 0, False, 0.0]],
                0.0,
            ),
        ),
        (Fault("kill executor", 0.009377516713238233, 3, 1.0),),
        workers=3,
        slots=1,
    ),
    "seed 8009075, failing: of two workers that began a lone step one was stopped, which is no begin to count": Case(
        8009075,
        (
            RunCase(
                "sim/program-sync",
                ["seq", ["run", "s1", 1, False, 0.05], ["run", "s2", 0, False, 0.0]],
                0.0,
            ),
        ),
        (Fault("kill executor", 0.009377516713238233, 3, 1.0),),
        workers=3,
        slots=1,
    ),
}
