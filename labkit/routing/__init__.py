"""Routing: give each request the cheapest model that will get it right, and know what that costs and saves.

A `Signal` scores a request before anything is asked, a `Judge` the small model's answer after; a `Policy` is the rest as
data: models, thresholds, fallbacks, and the floors, budgets and sessions that no score may overrule. The levers follow it:
`route_before` chooses one model, `cascade` asks the small one first and goes up when its answer is doubtful, `hedge` asks
two and listens to the quicker, `with_fallback` goes round a model whose `Breaker` is open, `shadow` and `split` try another
way on a part of the traffic. Whether it pays is told by `evaluate` and `metrics` on recorded outcomes (frontier, oracle,
intervals, RouteLLM's metrics, calibration), and by `sequential` and `experiment` on live traffic.
"""

from labkit.routing.classifier import Classifier
from labkit.routing.evaluate import Outcomes, baselines, bootstrap, frontier
from labkit.routing.experiment import Thompson, drift, shadow
from labkit.routing.health import AllDown, Breaker, CircuitOpen, with_fallback
from labkit.routing.hedge import hedge
from labkit.routing.policy import Floor, Policy
from labkit.routing.route import Decision, cascade, route_before
from labkit.routing.sequential import PairedTest, split
from labkit.routing.signals import Judge, Score, Signal

__all__ = [
    "AllDown",
    "Breaker",
    "CircuitOpen",
    "Classifier",
    "Decision",
    "Floor",
    "Judge",
    "Outcomes",
    "PairedTest",
    "Policy",
    "Score",
    "Signal",
    "Thompson",
    "baselines",
    "bootstrap",
    "cascade",
    "drift",
    "frontier",
    "hedge",
    "route_before",
    "shadow",
    "split",
    "with_fallback",
]
