"""No client of ours retries by itself: the official one would make two more attempts below each of `Retry`'s."""

from __future__ import annotations

import ast
from pathlib import Path

import labkit

ROOT = Path(labkit.__file__).parents[1]
FOLDERS = ("labkit", "notebooks", "examples", "binder", "benchmarks", "docs", "setup", "tests")
CLIENTS = {"OpenAI", "AsyncOpenAI", "AzureOpenAI", "AsyncAzureOpenAI", "Anthropic", "AsyncAnthropic"}
TRANSPORTS = {"HTTPTransport", "AsyncHTTPTransport"}


def retries_in(source: str) -> list[str]:
    """Each client that may retry, as "line: what is wrong"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        none = {arg for arg, value in given.items() if isinstance(value, ast.Constant) and value.value == 0}
        if name in CLIENTS and "max_retries" not in none:
            found.append(f"{node.lineno}: {name} without max_retries=0")
        if name not in CLIENTS and "max_retries" in given and "max_retries" not in none:
            found.append(f"{node.lineno}: {name} with max_retries")
        if name in TRANSPORTS and "retries" in given and "retries" not in none:
            found.append(f"{node.lineno}: {name} with retries")
    return found


def test_no_client_retries_by_itself():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): retries_in(path.read_text(encoding="utf-8")) for path in files}
    assert len(found) > 300
    assert {path: faults for path, faults in found.items() if faults} == {}


def test_the_check_sees_each_way():
    source = "\n".join(
        [
            "AsyncOpenAI()",
            "openai.OpenAI(max_retries=2)",
            "client.with_options(max_retries=1)",
            "httpx.AsyncHTTPTransport(retries=3)",
            "openai.AsyncOpenAI(max_retries=0)",
            "httpx.AsyncHTTPTransport()",
        ]
    )
    assert [fault.split(":")[0] for fault in retries_in(source)] == ["1", "2", "3", "4"]
