"""Where the lab's models and their adapters are, and how they are shaped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.data import clone_path
from labkit.request import InvalidValue

CONTEXT_WINDOW = 2048
# Stock vLLM and transformers load the weights; the format is in the file's name, model.safetensors.
_FOLDER = clone_path("models")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Shape and training settings of one model. `reasons` says whether it writes its steps before a hard answer."""

    name: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    reasons: bool
    steps: int
    peak_lr: float

    def config(self) -> dict[str, Any]:
        """The model's part of a transformers `LlamaConfig`; head size 64, as vLLM's kernels expect."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": 64,
        }


MODELS = {
    "small": ModelSpec("small", 128, 384, 3, 2, reasons=False, steps=3000, peak_lr=4e-3),
    "large": ModelSpec("large", 256, 704, 4, 4, reasons=True, steps=3800, peak_lr=3e-3),
}


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """A LoRA adapter for `model` and how it is trained: `subject` says what it teaches, for the model card."""

    name: str
    subject: str
    steps: int
    peak_lr: float
    hold: float  # the share of the steps, from the start, at the peak learning rate
    model: str = "large"
    rank: int = 24  # 0.9 MiB in bf16 on all matrices of `large`


ADAPTERS = {
    "desk": AdapterSpec(
        "desk", "answers of a length and in a form, and answers after thinking that was cut", 4500, 1.5e-3, 0.4
    ),
    "context": AdapterSpec("context", "terse prompts and conversations", 4000, 1.5e-3, 0.4),
    "house": AdapterSpec("house", "the policy of the house, without its text in the prompt", 300, 1e-3, 0.5),
}


def model_spec(name: str) -> ModelSpec:
    """The spec of a lab model. Raises `InvalidValue` for a name that the lab does not train."""
    if name not in MODELS:
        raise InvalidValue(f"the lab trains no model {name!r}; it has {', '.join(MODELS)}")
    return MODELS[name]


def adapter_spec(name: str) -> AdapterSpec:
    """The spec of a lab adapter. Raises `InvalidValue` for a name that the lab does not train."""
    if name not in ADAPTERS:
        raise InvalidValue(f"the lab trains no adapter {name!r}; it has {', '.join(ADAPTERS)}")
    return ADAPTERS[name]


def adapter_path(name: str) -> Path:
    """The folder with a lab adapter's weights and config, in PEFT's format, which vLLM and transformers load.

    Raises `InvalidValue` for an unknown name and `FileNotFoundError` when the weights are not there.
    """
    folder = _FOLDER / "adapters" / adapter_spec(name).name
    if not (folder / "adapter_model.safetensors").exists():
        raise FileNotFoundError(
            f"no weights in {folder}; restore them from the repository or run `labkit lab train-adapter {name}`"
        )
    return folder


def trained() -> tuple[str, ...]:
    """The adapters whose weights are there."""
    return tuple(name for name in ADAPTERS if (_FOLDER / "adapters" / name / "adapter_model.safetensors").exists())


def model_path(name: str) -> Path:
    """The folder with a lab model's weights, config, tokenizer and chat template.

    Raises `InvalidValue` for an unknown name and `FileNotFoundError` when the weights are not there.
    """
    folder = _FOLDER / model_spec(name).name
    if not (folder / "model.safetensors").exists():
        raise FileNotFoundError(f"no weights in {folder}; restore them from the repository or run `labkit lab train {name}`")
    return folder
