"""LLMLingua's part of shrink_peer.py: a Python that has LLMLingua 0.2.2 compresses the prompts of a job and times it.

Reads the job from the file named first and writes the results to the one named second. It needs no network: LLMLingua asks
for OpenAI's tokenizer only to report counts, and is given one that counts words.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tiktoken
import torch


class _Words:
    """Stands in for OpenAI's tokenizer, whose file must be downloaded."""

    @staticmethod
    def encode(text: str) -> list[str]:
        return text.split()


tiktoken.encoding_for_model = lambda _: _Words()  # type: ignore[assignment,return-value]

from llmlingua import PromptCompressor  # noqa: E402 - it asks for the tokenizer


def _compressor(model: str) -> PromptCompressor:
    """LLMLingua on `model`, whose tokenizer is named as its older transformers knows it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(model, Path(folder) / "model"))
        settings = copy / "tokenizer_config.json"
        told = {**json.loads(settings.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
        settings.write_text(json.dumps(told))
        return PromptCompressor(str(copy), device_map="cpu")


def _compressed(compressor: Any, texts: list[str], rate: float, question: bool, steps: bool) -> list[str]:
    """Each text alone; with `question` the last one stays, and is what the others are compressed for (LongLLMLingua).

    LLMLingua works in steps of 200 tokens and leaves a text below that as it is. With `steps`, short texts are one step.
    """

    def size(text: str) -> int:
        return min(200, compressor.get_token_length(text)) if steps else 200

    if not question:
        return [
            compressor.compress_prompt([text], rate=rate, iterative_size=size(text))["compressed_prompt"] for text in texts
        ]
    asked = texts[-1]
    made = compressor.compress_prompt(
        texts[:-1],
        question=asked,
        rate=rate,
        iterative_size=size(texts[0]),
        rank_method="longllmlingua",
        condition_in_question="after_condition",
        condition_compare=True,
        use_context_level_filter=False,
        concate_question=False,
    )
    return [made["compressed_prompt"], asked]


def main() -> None:
    """Compress and time."""
    torch.set_num_threads(1)
    job = json.loads(Path(sys.argv[1]).read_text())
    compressor = _compressor(job["model"])
    _compressed(compressor, job["prompts"][0]["texts"], 0.5, False, True)  # the first call is slow
    rows = []
    for prompt in job["prompts"]:
        started = time.process_time()
        try:
            texts = _compressed(compressor, **prompt)
            failed = ""
        except Exception as error:  # noqa: BLE001 - whatever it raises, the prompt goes as it is and the table says so
            texts, failed = prompt["texts"], f"{type(error).__name__}: {error}"
        rows.append({"texts": texts, "seconds": time.process_time() - started, "failed": failed})
    Path(sys.argv[2]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
