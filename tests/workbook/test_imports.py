"""What importing a room brings along: nothing that only its drawing and its look-ups need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pandas", "scipy", "altair", "torch", "transformers", "duckdb", "IPython", "ipywidgets", "genai_prices", "openai")


@pytest.mark.parametrize("room", ["cost", "tokens", "lab", "workbook", "cli"])
def test_a_room_is_entered_without_the_libraries_that_take_seconds(room):
    code = f"import sys, labkit.{room}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_live_viewer_is_there_when_it_is_asked_for():
    from labkit import workbook

    assert callable(workbook.watch_blocks)
    with pytest.raises(AttributeError, match="no attribute 'watch_block'"):
        workbook.watch_block  # noqa: B018
