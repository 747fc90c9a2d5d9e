"""What a model's name stands for: the lab's two models, folders, hub ids."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.request import InvalidValue

# The lab's models, and the variables that put another in their place.
LAB_MODELS = {"small": "LABKIT_SMALL", "large": "LABKIT_LARGE"}

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM's max_lora_rank takes


def chosen_instead(model: str) -> str:
    """The model that the environment names instead of the lab's `model`; empty where it names none."""
    return os.environ.get(LAB_MODELS[model], "") if model in LAB_MODELS else ""


def lab_model(model: str) -> str:
    """The folder or hub id that `model` stands for.

    The lab's names become folders, or the model that the environment names instead. A path becomes absolute; a hub id stays.
    Raises `InvalidValue` for a path that holds no model.
    """
    if model in LAB_MODELS:
        chosen = chosen_instead(model)
        if not chosen:
            from labkit.lab import model_path

            return str(Path(model_path(model)).resolve())
        model = chosen
    looks_like_path = model.startswith((".", "/", "~")) or Path(model).exists()
    if not looks_like_path:
        return model
    path = Path(model).expanduser().resolve()
    if not (path / "config.json").is_file():
        raise InvalidValue(f"no model at {path}: a model folder holds config.json, weights and a tokenizer")
    return str(path)


def adapter_name(adapter: str) -> str:
    """The name that requests ask for an adapter by: one of the lab's, or the folder's own name."""
    return Path(adapter).name


def adapter_arguments(model: str, adapters: Sequence[str]) -> dict[str, Any]:
    """vLLM's arguments to serve LoRA `adapters` beside `model`: names of the lab's, or folders in PEFT's format.

    Raises `InvalidValue` for an adapter that does not exist, or that was trained for another of the lab's models.
    """
    if not adapters:
        return {}
    modules, ranks = [], []
    for adapter in adapters:
        folder = _adapter_folder(adapter)
        config = json.loads((folder / "adapter_config.json").read_text())
        base = config.get("base_model_name_or_path")
        if base in LAB_MODELS and (model != base or chosen_instead(model)):
            served = chosen_instead(model) or model
            raise InvalidValue(f"adapter {adapter_name(adapter)!r} was trained for the lab's {base!r}, not for {served!r}")
        modules.append({"name": adapter_name(adapter), "path": str(folder)})
        ranks.append(config["r"])
    return {
        "enable_lora": True,
        "max_loras": len(modules),
        "max_lora_rank": next((rank for rank in _RANKS if rank >= max(ranks)), max(ranks)),
        "lora_modules": modules,
    }


def _adapter_folder(adapter: str) -> Path:
    from labkit.lab import ADAPTERS, adapter_path

    if adapter in ADAPTERS:
        return Path(adapter_path(adapter)).resolve()
    path = Path(adapter).expanduser().resolve()
    if not (path / "adapter_config.json").is_file():
        raise InvalidValue(
            f"no adapter {adapter!r}: give one of {', '.join(ADAPTERS)}, or a folder with adapter_config.json and weights"
        )
    return path


def tokenizer_folder(model: str) -> str | None:
    """The folder of `model`'s tokenizer; None where the model is not on this machine."""
    try:
        path = Path(lab_model(model))
    except (InvalidValue, ImportError, OSError):
        return None
    return str(path) if path.is_dir() else None
