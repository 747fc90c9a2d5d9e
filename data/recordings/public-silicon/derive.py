"""Derive the recordings beside this file from `silicon_sample.csv` of the package aiconfigurator-core.

    pip download --no-deps aiconfigurator-core==0.12.0 && unzip aiconfigurator_core-*.whl
    python derive.py aiconfigurator_core/systems/silicon_sample.csv

Kept are the points of vLLM serving one dense model on H100 or H200 GPUs whose shape the lab knows, each in the precision of
its published checkpoint: the models and precisions of `SOURCES`. No number is changed but for its unit (ms become s).
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PACKAGE = "aiconfigurator-core 0.12.0"
DEVICES = {"h100_sxm": ("h100", "NVIDIA H100 80 GB SXM"), "h200_sxm": ("h200", "NVIDIA H200 141 GB SXM")}
INFERENCEX = "a machine of SemiAnalysis InferenceX"
NVIDIA = "a machine of NVIDIA's AIConfigurator team"
# As benchmarks/70b_fp8_h100_slurm.sh and 70b_fp8_h200_slurm.sh of github.com/SemiAnalysisAI/InferenceX start vLLM.
INFERENCEX_ARGUMENTS = {
    "kv_cache_dtype": "fp8",
    "max_num_batched_tokens": 8192,
    "enable_prefix_caching": False,
    "gpu_memory_utilization": 0.9,
}


class Source(NamedTuple):
    """One model of the file: the lab's name of its shape, its weights' precision, who measured it, and how vLLM was started.

    `given` is the precision that the file gives. `arguments` are the engine's, {} where nobody says them.
    """

    shape: str
    weights: str
    given: str
    machine: str
    arguments: dict[str, Any]


SOURCES = {
    "meta-llama/Llama-3.1-70B": Source("llama-3.1-70b", "fp8", "fp8", INFERENCEX, INFERENCEX_ARGUMENTS),
    "nvidia/Llama-3.1-8B-Instruct-FP8": Source("llama-3.1-8b", "fp8", "fp8", NVIDIA, {}),
    "Qwen/Qwen3-32B": Source("qwen3-32b", "bf16", "", NVIDIA, {}),  # not given: the checkpoint of that name is in BF16
}


def measured_on(row: dict[str, str]) -> str:
    """The day on which a row was measured, "undated" where the file does not say it."""
    notes = dict(note.strip().partition("=")[::2] for note in row["silicon_data_source"].split(";"))
    return notes.get("measured", "undated")[:10]


def derive(rows: list[dict[str, str]]) -> dict[str, str]:
    """The text of each recording, by its file's name, from the rows of silicon_sample.csv."""
    found: dict[str, str] = {}
    for model, source in SOURCES.items():
        for system, (key, device) in DEVICES.items():
            chosen = [
                row
                for row in rows
                if (row["backend"], row["mode"], row["model_path"], row["system"]) == ("vllm", "agg", model, system)
                and row["precision"] == source.given
            ]
            if not chosen:
                continue
            provenance = {
                "kind": "endpoint",
                "machine": source.machine,
                "device": device,
                "engine": "vLLM",
                "engine_version": " and ".join(sorted({row["backend_version"] or "of unknown version" for row in chosen})),
                "model": source.shape,
                "date": " and ".join(sorted({measured_on(row) for row in chosen})),
                "command": f"python derive.py silicon_sample.csv, of {PACKAGE}",
                "driver": "not stated",
                "arguments": source.arguments,
            }
            header = {"labkit_experiment": 1, "experiment": "silicon", "variant": source.weights, "provenance": provenance}
            points = [
                {
                    "gpus": int(float(row["tp_size"])),
                    "people": int(float(row["batch_size"])),
                    "prompt_tokens": int(row["isl"]),
                    "output_tokens": int(row["osl"]),
                    "ttft_s": round(float(row["silicon_ttft_ms"]) / 1000, 6),
                    "tpot_s": round(float(row["silicon_tpot_ms"]) / 1000, 7),
                }
                for row in chosen
            ]
            points.sort(key=lambda point: tuple(point.values()))
            lines = [header, *points, {"end": True}]
            found[f"silicon-{source.shape}-{key}.experiment.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines)
    return found


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8", newline="") as file:
        recordings = derive(list(csv.DictReader(file)))
    for name, text in recordings.items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"{name}: {text.count(chr(10)) - 2} points")
