"""The lab's own tasks and models: generate, train, evaluate.

A fictional outdoor-gear shop's support desk gives seven families of tasks whose right answers a program knows (`examples`,
`grade`), and two small Llama models trained on them (`model_path`): one that answers at once, and one that reasons in steps
first and is paid for it in output tokens. They make quality, confidence and cost real and exactly checkable, offline.
`pairs` and `traffic` are questions whose meanings are known, for caches to be judged by. Training and evaluation import
torch, so they are imported when asked for: see `labkit.lab.train` and `labkit.lab.evaluate`.
"""

from typing import TYPE_CHECKING, Any

from labkit.lab.models import MODELS, model_path
from labkit.lab.paraphrases import meanings, pairs, questions, traffic
from labkit.lab.tasks import Deck, Example, draw_policy, examples, families, grade, policy_example, split_of

if TYPE_CHECKING:
    from labkit.lab.__main__ import app as commands
    from labkit.lab.evaluate import long_examples, wilson

__all__ = [
    "MODELS",
    "Deck",
    "Example",
    "commands",
    "draw_policy",
    "examples",
    "families",
    "grade",
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
    """What evaluation offers beyond its reports, imported when it is asked for: it brings torch."""
    if name in ("long_examples", "wilson"):
        from labkit.lab import evaluate

        return getattr(evaluate, name)
    if name == "commands":
        from labkit.lab.__main__ import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
