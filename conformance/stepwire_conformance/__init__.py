"""The conformance kit: scripted conversations that a worker, or an executor, must be able to hold.

It knows the contract (`stepwire_proto`) and gRPC, and nothing of our own SDK and executor, so that it can be turned on
any. The cases are in `cases/`; their form is `proto/stepwire/conformance/v1/case.proto`; docs/conformance.md is the guide.
"""

from __future__ import annotations

from stepwire_conformance.cases import CaseError, Named, executor_cases, worker_cases
from stepwire_conformance.report import Outcome, Report, Result

__all__ = ["CaseError", "Named", "Outcome", "Report", "Result", "executor_cases", "worker_cases"]
