"""The lab's own tasks and models: generate, train, evaluate.

The support desk of a fictional outdoor-gear shop has seven families of tasks whose right answers a program knows
(`examples`, `grade`). Two small Llama models are trained on them (`model_path`): one answers at once, the other first
reasons in steps, which are billed as output tokens. They make quality, confidence and cost real and exactly checkable,
offline. The same tasks come with a style to answer in (`styled`), with words left out (`terse`), as conversations
(`thread`), with labels by example (`label_task`), and under one policy of the house (`house_example`). LoRA adapters have
learned all of these but the labels (`adapter_path`). `pairs`, `hard_pairs` and `traffic` give questions whose
meanings are known, to judge caches by. Training and evaluation need torch, so they are imported on first use: see
`labkit.lab.train` and `labkit.lab.evaluate`.
"""

from typing import TYPE_CHECKING, Any

from labkit.extras import extra
from labkit.lab.hard import HardPair, hard_pairs
from labkit.lab.house import HOUSE, house_example
from labkit.lab.models import ADAPTERS, MODELS, adapter_path, model_path
from labkit.lab.paraphrases import Question, meanings, pairs, questions, traffic
from labkit.lab.reader import reader_path
from labkit.lab.shots import Labelled, LabelTask, label_task, with_shots
from labkit.lab.styles import STYLED_FAMILIES, Form, Styled, graded, obeys, styled
from labkit.lab.tasks import Deck, Example, draw_policy, examples, families, grade, policy_example, split_of
from labkit.lab.telegraph import terse
from labkit.lab.threads import Thread, thread

if TYPE_CHECKING:
    from labkit.lab.__main__ import app as commands
    from labkit.lab.evaluate import answer, long_examples, put_between, wilson
    from labkit.lab.evaluate_adapters import answerer

__all__ = [
    "ADAPTERS",
    "HOUSE",
    "MODELS",
    "STYLED_FAMILIES",
    "Deck",
    "Example",
    "Form",
    "HardPair",
    "LabelTask",
    "Labelled",
    "Question",
    "Styled",
    "Thread",
    "adapter_path",
    "answer",
    "answerer",
    "commands",
    "draw_policy",
    "examples",
    "families",
    "grade",
    "graded",
    "hard_pairs",
    "house_example",
    "label_task",
    "long_examples",
    "meanings",
    "model_path",
    "obeys",
    "pairs",
    "policy_example",
    "put_between",
    "questions",
    "reader_path",
    "split_of",
    "styled",
    "terse",
    "thread",
    "traffic",
    "wilson",
    "with_shots",
]


def __getattr__(name: str) -> Any:
    """Import on first use: what needs torch (answers of a model, their grades), and the command line."""
    if name in ("answer", "long_examples", "put_between", "wilson"):
        with extra("models"):
            from labkit.lab import evaluate

        return getattr(evaluate, name)
    if name == "answerer":
        with extra("models"):
            from labkit.lab.evaluate_adapters import answerer

        return answerer
    if name == "commands":
        from labkit.lab.__main__ import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
