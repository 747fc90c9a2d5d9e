"""Fewer tokens out: how long an answer may be, how much it says, in which form, and what becomes of one that was cut.

Each lever is a value around the next handler. `Cap` limits the tokens, at a point that `AnswerLengths` and `best_cap` find,
and asks again or goes on where it cuts. `Stops` ends an answer at a text, `NoLoops` ends one that repeats itself,
`Verbosity` asks for less, `Template` has the model write only what differs. `Structured` holds answers to a form and checks
them on arrival, after `lint_schema` has said what in a schema makes them long. `Staged` gives a short answer first and the
detail on request. `ThinkingBudget` and `ThinkFirst` pay for reasoning where it pays. What any of it is worth is the cost of
a correct answer (`surface`, `cost_per_correct`).
"""

from labkit.output.asking import Where, as_said, both_parts, constrained, going_on, keyed
from labkit.output.cap import ANY_FEATURE, Cap, OnCut
from labkit.output.correct import Tried, cheapest, cost_per_correct, cost_per_correct_of, paid_by_request, surface
from labkit.output.lengths import AnswerLengths, Percentile
from labkit.output.lint import SchemaIssue, lint_schema
from labkit.output.loops import NoLoops, WayOfAsking, compare_ways
from labkit.output.newsvendor import BestCap, CutCosts, best_cap, mean_cost
from labkit.output.pattern import Spacing, pattern_of
from labkit.output.schema import KeyTable, ordered, shortened
from labkit.output.staged import Staged, StagedBill
from labkit.output.stop import Stops, Tail, tail
from labkit.output.structured import GrammarRefused, InvalidAnswer, Structured
from labkit.output.template import Slot, Template
from labkit.output.thinking import ThinkFirst, ThinkingBudget
from labkit.output.verbosity import WORDINGS, Obedience, Verbosity, obedience, words_of

__all__ = [
    "ANY_FEATURE",
    "WORDINGS",
    "AnswerLengths",
    "BestCap",
    "Cap",
    "CutCosts",
    "GrammarRefused",
    "InvalidAnswer",
    "KeyTable",
    "NoLoops",
    "Obedience",
    "OnCut",
    "Percentile",
    "SchemaIssue",
    "Slot",
    "Spacing",
    "Staged",
    "StagedBill",
    "Stops",
    "Structured",
    "Tail",
    "Template",
    "ThinkFirst",
    "ThinkingBudget",
    "Tried",
    "Verbosity",
    "WayOfAsking",
    "Where",
    "as_said",
    "best_cap",
    "both_parts",
    "cheapest",
    "compare_ways",
    "constrained",
    "cost_per_correct",
    "cost_per_correct_of",
    "going_on",
    "keyed",
    "lint_schema",
    "mean_cost",
    "obedience",
    "ordered",
    "paid_by_request",
    "pattern_of",
    "shortened",
    "surface",
    "tail",
    "words_of",
]
