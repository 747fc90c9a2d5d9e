"""What an install without an extra does: each use of a missing package names the extra that brings it."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from typing import get_args

import pytest
from packaging.utils import canonicalize_name

from labkit.extras import Extra, MissingExtra, extra
from labkit.request import LabError
from tests.extras.declared import CORE, EXTRAS, REPO, python_with

ENGINES_OWN = {"vllm", "uvloop", "mistral_common"}  # an engine brings these; which one is chosen by the set-up


def third_party(tree, inside=None):
    """What a module imports that is neither Python's nor ours: (top package, the extra named around it, for types only)."""
    for node in ast.iter_child_nodes(tree):
        named, typing = inside if inside is not None else (None, False)
        if isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            named = next((c.args[0].value for c in calls if getattr(c.func, "id", "") == "extra"), named)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            typing = True
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [node.module]
        for name in found:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "labkit":
                yield top, named, typing
        yield from third_party(node, (named, typing))


def sources():
    for path in sorted((REPO / "labkit").rglob("*.py")):
        yield path, list(third_party(ast.parse(path.read_text(encoding="utf-8"))))


def test_the_extras_of_the_package_are_those_that_errors_name():
    assert set(get_args(Extra)) == set(EXTRAS)


def test_every_package_that_is_imported_is_a_declared_dependency():
    known = packages_distributions()
    undeclared = set()
    for path, imports in sources():
        for top, named, typing in imports:
            if top in ENGINES_OWN or typing:
                continue
            own = {canonicalize_name(name) for name in known[top]}
            allowed = EXTRAS[named] if named else CORE.union(*EXTRAS.values())
            if not own & allowed:
                undeclared.add(f"{path.relative_to(REPO)}: {top}" + (f" is not in {named}" if named else ""))
    assert not undeclared


def test_no_dependency_is_declared_that_nothing_imports():
    known = packages_distributions()
    used = {canonicalize_name(name) for _, imports in sources() for top, *_ in imports for name in known.get(top, ())}
    lines = (REPO / "notebooks" / "src").glob("*.py")
    used |= {
        canonicalize_name(name)
        for path in lines
        for top, *_ in third_party(ast.parse(re.sub(r"(?m)^%.*$", "", path.read_text(encoding="utf-8"))))
        for name in known.get(top, ())
    }
    commands = {"jupyterlab", "ipykernel", "voila"}  # run, not imported: the page, its kernel, a page without code
    assert CORE.union(*EXTRAS.values()) - used - commands == set()


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(MissingExtra) as caught, extra("semantic"):
        import no_such_package.of_any_kind  # noqa: F401
    assert "no_such_package is not installed. Fix: pip install 'inference-cost-lab[semantic]'" in str(caught.value)
    assert isinstance(caught.value, LabError)
    assert isinstance(caught.value, ImportError)


def test_a_fault_of_our_own_is_not_taken_for_a_missing_extra():
    with pytest.raises(ModuleNotFoundError, match=r"labkit\.no_such_room") as caught, extra("semantic"):
        import labkit.no_such_room  # noqa: F401
    assert not isinstance(caught.value, MissingExtra)
    with pytest.raises(ImportError) as caught, extra("semantic"):
        from json import no_such_name  # noqa: F401
    assert not isinstance(caught.value, MissingExtra)


USES: dict[str, Extra] = {
    "ledger.spend(ledger.Ledger(':memory:'))": "analysis",
    "ledger.Ledger(':memory:').frame()": "analysis",
    "ledger.Ledger(':memory:').export_parquet('x.parquet')": "analysis",
    "caches.savings(ledger.Ledger(':memory:'))": "analysis",
    "caches.trial.daily_bill([], [], None, None)": "analysis",
    "caches.upper_bound(1, 10)": "semantic",
    "caches.fit_curve([], [])": "semantic",
    "Index(2).add('', 'key', numpy.array([1, 0], numpy.float32))": "semantic",
    "embeddings.embedder()": "semantic",
    "routing.calibrate([0.1] * 40, [True, False] * 20)": "analysis",
    "routing.HashedWords().encode(['text'])": "analysis",
    "experiments.Measured('', '', None, (), True).frame()": "analysis",
    "exports.write_focus_parquet([], 'x.parquet')": "analysis",
    "exports.totals_of_parquet('x.parquet')": "analysis",
    "spending.Mirror(ledger.Ledger(':memory:')).catch_up()": "analysis",
    "exports.send_otlp(ledger.Ledger(':memory:'), 'http://127.0.0.1:9')": "telemetry",
    "exports.spans_of([])": "telemetry",
    "exports.metrics_of([])": "telemetry",
    "load.ExactLengths('/nowhere')": "models",
    "tokens.tokenizer('/nowhere')": "models",
    "latency.shape('llama-3.1-8b')": "models",
    "kvcache.kv_size('llama-3.1-8b')": "models",
    "lab.wilson(1, 2)": "models",
    "workbook.dashboard()": "workbook",
    "workbook.build_notebooks([])": "workbook",
    "workbook.run_notebooks([])": "workbook",
    "workbook.watch_blocks(None)": "workbook",
    "workbook.watch_spending(None)": "workbook",
}


ASKED = """
import numpy
from labkit import caches, embeddings, experiments, exports, kvcache, lab, latency, ledger, load, routing, spending
from labkit import tokens, workbook
from labkit.caches.index import Index

for use in {uses!r}:
    try:
        eval(use)
    except ImportError as error:
        print(type(error).__name__, error)
    except Exception:
        print("used")
    else:
        print("used")
"""


def said(folder, uses, extra=""):
    """What each of `uses` ends in, where labkit was installed with `extra` or alone."""
    (folder / "asked.py").write_text(ASKED.format(uses=uses))
    (folder / "site").mkdir()
    command = [*python_with(folder / "site", extra), str(folder / "asked.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return dict(zip(uses, done.stdout.splitlines(), strict=True))


def test_what_needs_an_extra_says_which(tmp_path):
    named = {
        use: re.findall(r"^MissingExtra .*'inference-cost-lab\[(\w+)\]'", told)
        for use, told in said(tmp_path, list(USES)).items()
    }
    assert named == {use: [name] for use, name in USES.items()}


def test_with_the_extra_for_analysis_nothing_of_it_is_missing(tmp_path):
    uses = [use for use, name in USES.items() if name == "analysis"]
    assert len(uses) > 5
    assert set(said(tmp_path, uses, "analysis").values()) == {"used"}
