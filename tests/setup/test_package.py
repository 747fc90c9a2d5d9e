"""The wheel, and what works where it is installed alone: the core; and the rest says which extra is missing."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.examples.rooms import SCRIPTS, check, extra_of, run

REPO = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
HEAVY = (
    "IPython", "altair", "faiss", "ipywidgets", "jupyterlab", "numba", "pandas", "papermill", "pyarrow", "scipy",
    "sentence_transformers", "sklearn", "torch", "transformers", "vllm",
)  # fmt: skip
SCRIPT_FILES = sorted(SCRIPTS.glob("*.py"))
PLAIN = {key: value for key, value in os.environ.items() if not key.startswith(("LABKIT_", "PYTHON", "VIRTUAL_ENV"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    built = uv("build", "--wheel", "--out-dir", str(folder), str(REPO))
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory):
    """The `bin` folder of a new environment with the wheel and what its core asks for, in the pinned versions."""
    folder = tmp_path_factory.mktemp("alone") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    install = ["pip", "install", "--python", python, "--constraint", str(REPO / "requirements" / "common.txt")]
    done = uv(*install, str(wheel))
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def uv(*arguments):
    """uv, away from the environment of the tests. Where it reaches no package index at all, what asked for it is skipped."""
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False, env=PLAIN, cwd="/", timeout=300)
    if done.returncode and not index_answers():
        pytest.skip(f"NO PACKAGE INDEX can be reached, so nothing of this is known: {done.stderr[-300:]}")
    return done


def index_answers():
    asked = [UV, "pip", "compile", "--quiet", "--no-cache", "-"]
    known = subprocess.run(asked, input="packaging", capture_output=True, text=True, check=False, env=PLAIN, cwd="/")
    return known.returncode == 0


def labkit(alone, *arguments, folder="/", **environment):
    command = [alone / "labkit", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=PLAIN | environment, cwd=folder, timeout=120
    )


def test_the_package_builds_a_wheel_with_all_rooms_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    modules = {p.relative_to(REPO).as_posix() for p in (REPO / "labkit").rglob("*.py")}
    assert modules <= names
    assert "labkit/py.typed" in names
    data = {p.relative_to(REPO).as_posix() for p in (REPO / "labkit" / "data").rglob("*") if p.suffix == ".json"}
    assert "labkit/data/prices/hosts.json" in data
    assert data <= names
    assert "labkit = labkit.cli:main" in entry_points
    assert not [n for n in names if n.startswith(("tests/", "notebooks/", "data/", "examples/"))]


@pytest.mark.slow
def test_alone_it_brings_neither_torch_nor_jupyterlab_nor_pandas(alone):
    code = f"from importlib.util import find_spec; print(*[name for name in {HEAVY!r} if find_spec(name)]); import labkit"
    done = subprocess.run([alone / "python", "-c", code], capture_output=True, text=True, check=True, env=PLAIN, cwd="/")
    assert done.stdout.split() == []


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPT_FILES, ids=lambda path: path.stem)
def test_alone_each_room_works_or_names_its_extra(alone, path):
    done = run([str(alone / "python"), str(path)], PLAIN)
    extra = extra_of(path)
    if not extra:
        assert done.returncode == 0, done.stderr
        check(path.stem, done.stdout)
    else:
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("labkit.extras.MissingExtra: ")
        assert f"pip install 'inference-cost-lab[{extra}]'" in last


@pytest.mark.slow
def test_alone_the_command_gives_a_result_or_an_error_that_names_the_extra(alone, tmp_path):
    ledger = "from labkit.ledger import Ledger; Ledger('books.db').close()"
    subprocess.run([alone / "python", "-c", ledger], check=True, env=PLAIN, cwd=tmp_path)
    for arguments, says in (
        (["--help"], "doctor"),
        (["lab", "generate", "--family", "faq", "--n", "1"], '"id": "faq-test-0-0"'),
        (["record", "--list", "--where", "cpu"], "prefill-small-default"),
    ):
        done = labkit(alone, *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
    for arguments, extra in (
        (["ledger", "export", "books.db", "books.parquet"], "analysis"),
        (["lab", "train", "small"], "models"),
    ):
        done = labkit(alone, *arguments, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert f"'inference-cost-lab[{extra}]'" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["books.db"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["progress", "open", "notebooks run", "notebooks build"])
def test_alone_in_a_clone_the_workbooks_commands_name_their_extra(alone, command, tmp_path):
    done = labkit(alone, *command.split(), folder=REPO / "docs", LABKIT_STATE=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "'inference-cost-lab[workbook]'" in done.stderr
    away = labkit(alone, *command.split())
    assert away.returncode == 1
    assert "error: the workbook's files are neither" in away.stderr


@pytest.mark.slow
def test_alone_in_a_clone_the_doctor_says_what_is_missing_and_goes_on(alone):
    done = labkit(alone, "doctor", "--quick", folder=REPO / "docs")
    assert done.returncode == 1
    assert "no JupyterLab in this environment" in done.stdout
    assert "Lab models" in done.stdout
    assert done.stderr == ""
