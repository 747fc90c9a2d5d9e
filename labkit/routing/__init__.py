"""Routing: give each request the cheapest model that will get it right, and know what that costs and saves.

A `Signal` scores a request before any model is asked. A `Judge` scores the small model's answer. A `RoutingPolicy` holds
the rest as data: models, thresholds, fallbacks, and the floors, budgets and sessions that no score may overrule. `Route` and
`Cascade` follow a policy: `Route` chooses one model; `Cascade` asks the small one first and goes up to a larger one when the
answer is doubtful. The other choosers need no policy: `Hedge` asks a second model when the first is slow and delivers the
quicker answer, `Fallback` skips a model whose circuit is open in the `Breaker`, and `Shadow` and `Split` try another handler
on a part of the traffic. Each chooser is a value that is placed over models by name:

    stack(Booked(ledger), Cascade(policy, SequenceLogprob(), logprobs=0), engine={"small": small, "large": large})

To find out whether routing pays, use `evaluate`, `bounds` and `metrics` on recorded outcomes (frontier, coin, oracle,
intervals, RouteLLM's metrics, calibration error), and `sequential` and `experiment` on live traffic.
"""

from labkit.routing.bounds import coin_cost, coin_quality, least_cost, oracle_cost
from labkit.routing.calibration import Calibration, calibrate
from labkit.routing.cascade import Cascade
from labkit.routing.classifier import Classifier, Weights
from labkit.routing.context import RoutingContext, RoutingDecision
from labkit.routing.engine_errors import retry_after_s
from labkit.routing.evaluate import (
    CascadeCost,
    Interval,
    Outcomes,
    Way,
    at_threshold,
    baselines,
    bootstrap,
    cascade_cost,
    expected_cascade_cost,
    frontier,
)
from labkit.routing.experiment import Drift, Thompson, drift, psi, utility
from labkit.routing.fallback import Fallback
from labkit.routing.hashed import HashedWords
from labkit.routing.health import AllDown, Breaker, CircuitOpen
from labkit.routing.hedge import Hedge
from labkit.routing.judges import AllOf, CalibratedJudge, Margin, SelfConsistency, SequenceLogprob, verdict
from labkit.routing.metrics import apgr, cpt, ece, knn_scores, pgr, reliability
from labkit.routing.policy import Floor, RoutingPolicy
from labkit.routing.route import Route
from labkit.routing.sequential import PairedTest
from labkit.routing.shadow import Copies, Shadow
from labkit.routing.signals import AsksForAgent, CalibratedSignal, Judge, Lowest, Rule, Rules, Score, Signal
from labkit.routing.split import Split, arm, dealt
from labkit.routing.validators import Finished, JsonSchema, KeepsRule, UnsafePhrases, Valid, Validator

__all__ = [
    "AllDown",
    "AllOf",
    "AsksForAgent",
    "Breaker",
    "CalibratedJudge",
    "CalibratedSignal",
    "Calibration",
    "Cascade",
    "CascadeCost",
    "CircuitOpen",
    "Classifier",
    "Copies",
    "Drift",
    "Fallback",
    "Finished",
    "Floor",
    "HashedWords",
    "Hedge",
    "Interval",
    "JsonSchema",
    "Judge",
    "KeepsRule",
    "Lowest",
    "Margin",
    "Outcomes",
    "PairedTest",
    "Route",
    "RoutingContext",
    "RoutingDecision",
    "RoutingPolicy",
    "Rule",
    "Rules",
    "Score",
    "SelfConsistency",
    "SequenceLogprob",
    "Shadow",
    "Signal",
    "Split",
    "Thompson",
    "UnsafePhrases",
    "Valid",
    "Validator",
    "Way",
    "Weights",
    "apgr",
    "arm",
    "at_threshold",
    "baselines",
    "bootstrap",
    "calibrate",
    "cascade_cost",
    "coin_cost",
    "coin_quality",
    "cpt",
    "dealt",
    "drift",
    "ece",
    "expected_cascade_cost",
    "frontier",
    "knn_scores",
    "least_cost",
    "oracle_cost",
    "pgr",
    "psi",
    "reliability",
    "retry_after_s",
    "utility",
    "verdict",
]
