"""The lab's own tasks and models: generate, train, evaluate.

The support desk of a fictional outdoor-gear shop has seven families of tasks whose right answers a program knows
(`examples`, `grade`). Two small Llama models are trained on them (`model_path`): one answers at once, the other first
reasons in steps, which are billed as output tokens. They make quality, confidence and cost real and exactly checkable,
offline. `pairs`, `hard_pairs` and `traffic` give questions whose meanings are known, to judge caches by. Training and
evaluation need torch, so they are imported on first use: see `labkit.lab.train` and `labkit.lab.evaluate`.
"""

from typing import TYPE_CHECKING, Any

from labkit.extras import extra
from labkit.lab.hard import HardPair, hard_pairs
from labkit.lab.models import MODELS, model_path
from labkit.lab.paraphrases import Question, meanings, pairs, questions, traffic
from labkit.lab.tasks import Deck, Example, draw_policy, examples, families, grade, policy_example, split_of

if TYPE_CHECKING:
    from labkit.lab.__main__ import app as commands
    from labkit.lab.evaluate import long_examples, wilson

__all__ = [
    "MODELS",
    "Deck",
    "Example",
    "HardPair",
    "Question",
    "commands",
    "draw_policy",
    "examples",
    "families",
    "grade",
    "hard_pairs",
    "long_examples",
    "meanings",
    "model_path",
    "pairs",
    "policy_example",
    "questions",
    "split_of",
    "traffic",
    "wilson",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `long_examples` and `wilson`, which need torch, and the command line."""
    if name in ("long_examples", "wilson"):
        with extra("models"):
            from labkit.lab import evaluate

        return getattr(evaluate, name)
    if name == "commands":
        from labkit.lab.__main__ import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
