"""The lab's own tasks and models: generate, train, evaluate.

A fictional outdoor-gear shop's support desk gives seven families of tasks whose right answers a program knows (`examples`,
`grade`), and two small Llama models trained on them (`model_path`): one that answers at once, and one that reasons in steps
first and is paid for it in output tokens. They make quality, confidence and cost real and exactly checkable, offline.
Training and evaluation import torch, so they are not imported here: see `labkit.lab.train` and `labkit.lab.evaluate`.
"""

from labkit.lab.models import MODELS, model_path
from labkit.lab.tasks import Example, examples, families, grade, policy_example, split_of

__all__ = ["MODELS", "Example", "examples", "families", "grade", "model_path", "policy_example", "split_of"]
