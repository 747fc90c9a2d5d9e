"""What a model's name stands for: the lab's two models, folders, hub ids."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.request import InvalidValue

# The lab's models, and the variables that put another in their place.
LAB_MODELS = {"small": "LABKIT_SMALL", "large": "LABKIT_LARGE"}


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


def tokenizer_folder(model: str) -> str | None:
    """The folder of `model`'s tokenizer; None where the model is not on this machine."""
    try:
        path = Path(lab_model(model))
    except (InvalidValue, ImportError, OSError):
        return None
    return str(path) if path.is_dir() else None
