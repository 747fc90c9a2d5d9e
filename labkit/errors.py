"""Every error of the lab in one place, with the HTTP status that a service would answer with.

The status says who has to fix the error: the caller (4xx: `InvalidRequest` and its kind), whoever runs the lab (500:
`InvalidValue`, a ledger or a cache in trouble), or the engine behind it (502, 503, 504).
"""

from __future__ import annotations

from collections.abc import Mapping

from labkit.batching import BatcherClosed, BatchFailed, FunctionFailed, QueueFull
from labkit.budgets import BudgetExhausted, Overspent, PursesError
from labkit.caches import CacheError
from labkit.cost import UnknownPrice
from labkit.embeddings import BadVector
from labkit.engines import EngineArgumentError, EngineRestarted, EngineStartError, MetricMissing, RecordingError
from labkit.exports import ExportError, TooManySeries
from labkit.extras import MissingExtra
from labkit.ledger import InvalidRow, LedgerError
from labkit.output import GrammarRefused, InvalidAnswer
from labkit.request import (
    ContextWindowExceeded,
    DeadlineExceeded,
    DoorClosed,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    InvalidValue,
    LabError,
    StreamIncomplete,
)
from labkit.resilience import CannotResume, KeyReused
from labkit.routing import AllDown, CircuitOpen
from labkit.shrink import InstructionMissing, NoKey, OverBudget, ProtectedTextLost, SummaryFailed
from labkit.streaming import StreamGone

STATUS: Mapping[type[LabError], int] = {
    InvalidRequest: 400,
    ContextWindowExceeded: 400,
    InstructionMissing: 400,
    NoKey: 500,
    OverBudget: 400,
    SummaryFailed: 502,
    InvalidRow: 400,  # a request whose tenant or feature no ledger can keep
    BudgetExhausted: 402,
    StreamGone: 404,
    KeyReused: 422,
    QueueFull: 429,
    LabError: 500,
    InvalidValue: 500,
    ProtectedTextLost: 500,
    MissingExtra: 500,
    LedgerError: 500,
    ExportError: 500,
    TooManySeries: 500,
    CacheError: 500,
    PursesError: 500,
    Overspent: 500,
    UnknownPrice: 500,
    FunctionFailed: 500,
    BatchFailed: 500,
    RecordingError: 500,
    BadVector: 500,
    MetricMissing: 500,
    EngineArgumentError: 500,
    GrammarRefused: 500,  # whoever set the form has to change it
    EngineError: 502,
    EngineUnreachable: 502,
    StreamIncomplete: 502,
    CannotResume: 502,
    InvalidAnswer: 502,
    EngineRestarted: 502,
    EngineStartError: 503,
    BatcherClosed: 503,
    DoorClosed: 503,
    CircuitOpen: 503,
    AllDown: 503,
    EngineStalled: 504,
    DeadlineExceeded: 504,
}
"""The status of each error. An error that is not listed has the status of its nearest base class."""
_PASSED_ON = frozenset({400, 413, 422, 429})


def status_of(error: BaseException) -> int:
    """The HTTP status to answer with when `error` ended a request; 500 for an error that is not one of the lab's.

    Where the engine refused the request itself or its rate (400, 413, 422, 429), its status is passed on, because the caller
    can fix the request. Its other statuses become 502: a wrong key for the engine (401), for example, is not the caller's.
    """
    if type(error) is EngineError and error.status in _PASSED_ON:
        return int(error.status)
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
