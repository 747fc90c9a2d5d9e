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


WITHOUT_NUMPY = {
    "cli", "cost", "data", "engines", "extras", "lab", "ledger", "request", "sqlite", "streaming", "tokens", "workbook",
}  # fmt: skip
"""The rooms in which nothing is computed with arrays. They are imported in less time than numpy takes alone."""


def test_a_room_that_computes_with_no_arrays_does_not_load_numpy():
    for room in sorted(WITHOUT_NUMPY):
        code = f"import sys, labkit.{room}\nprint(*[name for name in {('numpy', *HEAVY)!r} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout.split() == [], room
        assert done.returncode == 0, done.stderr


def test_no_room_loads_a_heavy_library_when_it_is_imported():
    rooms = [f"labkit.{found.name}" for found in pkgutil.iter_modules(labkit.__path__) if found.ispkg]
    assert len(rooms) > 15
    code = f"import sys, {', '.join(rooms)}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
