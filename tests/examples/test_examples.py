"""The first stacks that a newcomer writes, run as they stand in examples/ and in the README, on a live engine."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LINES = 16  # of code, imports and docstring apart: ten for the stack, the rest asks it


def run(path, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, path, *arguments], capture_output=True, text=True, timeout=400, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_readme_shows_the_first_example():
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown.strip() == (ROOT / "examples" / "cache_over_a_model.py").read_text(encoding="utf-8").strip()


def test_there_are_three_examples():
    assert [path.stem for path in EXAMPLES] == ["cache_over_a_model", "everything", "router_over_two"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_is_read_in_one_look(path):
    statements = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.stmt)]
    code = [s for s in statements if not isinstance(s, ast.Import | ast.ImportFrom)]
    assert len(code) <= LINES


@pytest.mark.live
def test_a_cache_over_a_model_answers_the_second_time_for_nothing():
    first, second = re.findall(r"^(.*) ([\d.]+) (\(.*\))$", run(ROOT / "examples" / "cache_over_a_model.py"), re.MULTILINE)[
        :2
    ]
    assert first[0] == second[0]
    assert float(first[1]) > 0
    assert (float(second[1]), second[2]) == (0, "('response-cache',)")


@pytest.mark.live
def test_a_router_over_two_books_every_model_that_it_asked():
    told = run(ROOT / "examples" / "router_over_two.py")
    routes = re.findall(r"'cascade:([a-z>]+)'", told)
    assert len(routes) == 2
    assert set(routes) <= {"small", "small>large"}
    assert re.search(r"^\d+\s+small\b", told, re.MULTILINE)


@pytest.mark.live
def test_everything_at_once_answers_from_a_file_of_itself(tmp_path):
    told = run(ROOT / "examples" / "everything.py", str(tmp_path / "stack.yaml"))
    answers = re.findall(r"^.* ([\d.]+|None) (\(.*\))$", told, re.MULTILINE)
    assert len(answers) == 3
    assert answers[2] == ("0", "('response-cache',)")
    assert "is: SemanticCache" in (tmp_path / "stack.yaml").read_text()
