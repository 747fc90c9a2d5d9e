"""Importing a room is quick: nothing heavy is loaded before something asks for it."""

import pkgutil
import subprocess
import sys

import labkit

HEAVY = (
    "IPython", "altair", "duckdb", "faiss", "genai_prices", "httpx", "ipywidgets", "jupytext", "numba", "openai", "pandas",
    "pyarrow", "pydantic", "scipy", "sentence_transformers", "sklearn", "torch", "transformers", "vllm",
)  # fmt: skip
"""Each takes from a tenth of a second to ten seconds."""


def test_no_room_loads_a_heavy_library_when_it_is_imported():
    rooms = [f"labkit.{found.name}" for found in pkgutil.iter_modules(labkit.__path__) if found.ispkg]
    assert len(rooms) > 15
    code = f"import sys, {', '.join(rooms)}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
