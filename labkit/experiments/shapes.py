"""A model folder with the real shape of a big model and no weights: its answers are noise, its timings are real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from labkit.engines import lab_model
from labkit.latency import shape_path

# vLLM fills the weights with small random numbers instead of reading them.
DUMMY = {"load_format": "dummy"}


def dummy_model(shape: str, folder: Path) -> Path:
    """Write the model folder `folder`/<shape> and return it. `shape` is a known name or a configuration file (.json).

    The folder holds the configuration and the lab's tokenizer, extended to the configuration's vocabulary. Every token that
    the model may choose has a text ("⟨n⟩" for tokens that the lab's tokenizer lacks), so an answer streams like any other.
    Raises `InvalidValue` for an unknown shape.
    """
    config = json.loads(shape_path(shape).read_text(encoding="utf-8"))
    made = folder / Path(shape).stem if shape.endswith(".json") else folder / shape
    made.mkdir(parents=True, exist_ok=True)
    source = Path(lab_model("small"))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, made / name)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    taken = set(vocabulary.values()) | {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary.update({f"⟨{n}⟩": n for n in range(config["vocab_size"]) if n not in taken})
    (made / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    small = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):  # the tokenizer is the lab's, so its ids count
        if name in small:
            config[name] = small[name]
    (made / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return made
