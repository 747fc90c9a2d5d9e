"""The set-up's own decisions."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`setup/install.py`, loaded over an environment folder of the test's own."""
    spec = importlib.util.spec_from_file_location("install", REPO / "setup" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / "venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / "venv" / "labkit-pins.json")
    (tmp_path / "venv").mkdir()
    monkeypatch.delenv("LABKIT_ENGINE", raising=False)
    return module


def test_an_engine_can_be_chosen_by_hand(install, monkeypatch):
    monkeypatch.setenv("LABKIT_ENGINE", "none")
    assert install.chosen_engine() == "none"
    monkeypatch.setenv("LABKIT_ENGINE", "tpu")
    with pytest.raises(SystemExit, match="LABKIT_ENGINE=tpu is none of cpu, gpu, none"):
        install.chosen_engine()


@pytest.mark.parametrize(
    ("system", "machine", "gpu", "engine"),
    [
        ("linux", "x86_64", False, "cpu"),
        ("linux", "x86_64", True, "gpu"),
        ("linux", "aarch64", False, "cpu"),
        ("linux", "riscv64", False, "none"),
        ("darwin", "arm64", False, "none"),
        ("win32", "AMD64", True, "none"),
    ],
)
def test_the_engine_is_chosen_by_what_the_machine_has(install, monkeypatch, system, machine, gpu, engine):
    monkeypatch.setattr(install.sys, "platform", system)
    monkeypatch.setattr(install.platform, "machine", lambda: machine)
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: gpu)
    assert install.chosen_engine() == engine


def test_a_gpu_is_one_that_the_driver_lists(install, monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not install.has_nvidia_gpu()
    for script, there in (("echo 'GPU 0: NVIDIA H200 (UUID: x)'", True), ("echo 'No devices were found'; exit 6", False)):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        assert install.has_nvidia_gpu() is there


def test_torch_comes_from_a_folder_that_pip_is_told_of(install, tmp_path):
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    (tmp_path / f"torch-2.13.0+cpu-{version}-{version}-manylinux_2_28_x86_64.whl").touch()
    assert install.torch_source("cpu", {"PIP_FIND_LINKS": f"/nowhere {tmp_path}"}) == ["--find-links", str(tmp_path)]


@pytest.mark.parametrize(
    "wheel", ["torch-2.12.0+cpu-cp311-cp311-linux_x86_64.whl", "torch-2.13.0+cpu-cp39-cp39-linux_x86_64.whl"]
)
def test_torch_comes_from_its_own_index_when_no_folder_has_the_right_one(install, tmp_path, wheel):
    (tmp_path / wheel).touch()
    assert install.torch_source("cpu", {"PIP_FIND_LINKS": str(tmp_path)}) == ["--torch-backend", "cpu"]
    assert install.torch_source("gpu", {"PIP_FIND_LINKS": str(tmp_path)}) == []


def test_a_second_call_installs_nothing_and_a_changed_pin_does(install, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(install, "run", lambda command, *_: ran.append(command))
    monkeypatch.setattr(install, "keep_bytecode", lambda *_: None)
    monkeypatch.setenv("LABKIT_ENGINE", "cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setattr(install, "torch_source", lambda *_: [])
    install.main()
    assert any("--editable" in command for command in ran)
    ran.clear()
    install.main()
    assert ran == []
    install.STAMP.write_text(json.dumps({**json.loads(install.STAMP.read_text()), "pins": "others"}))
    install.main()
    assert ran


def test_a_failed_step_leaves_no_stamp_and_says_what_to_do(install, monkeypatch):
    monkeypatch.setenv("LABKIT_ENGINE", "cpu")
    monkeypatch.setattr(install, "BIN", install.VENV / "bin")
    with pytest.raises(SystemExit, match="Fix: say this"):
        install.run([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ), "say this")
    assert not install.STAMP.exists()


def test_bytecode_is_kept_where_python_is_told_to_write_none_and_a_broken_import_stops_nothing(
    install, monkeypatch, tmp_path
):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.setattr(install, "BIN", Path(sys.executable).parent)
    monkeypatch.setattr(install, "REPO", tmp_path)
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tmp_path)}
    install.keep_bytecode(["import one", "import nonesuch", "import two"], environment)
    assert {path.name.partition(".")[0] for path in (tmp_path / "__pycache__").iterdir()} == {"one", "two"}


def test_what_the_set_up_imports_is_there_to_be_imported(install):
    """The import is tried in another process, because the test's own has imported much of it."""
    done = subprocess.run([sys.executable, "-c", install.CHAPTER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    function = install.ENGINES["cpu"].partition(";")[0]
    assert subprocess.run([sys.executable, "-c", function], check=False).returncode == 0


FOLDERS = ["lab #1 {x},[b] %20", 'it\'s "Übung" $HOME;&|`x`']


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_set_up_works_below_a_folder_of_any_name(install, monkeypatch, tmp_path, folder):
    """With the real uv: the pins are read, and an editable install starts by its command."""
    repo = tmp_path / folder
    (repo / "requirements").mkdir(parents=True)
    (repo / "labkit").mkdir()
    for name in ("setup", "common", "none"):
        (repo / "requirements" / f"{name}.txt").write_text("# nothing to fetch\n")
    (repo / "labkit" / "__init__.py").write_text("def main(): print('started')\n")
    # A build backend that needs nothing: an editable wheel of one line.
    (repo / "backend.py").write_text(BACKEND)
    (repo / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "labkit"\nversion = "0"\n'
    )
    monkeypatch.setattr(install, "REPO", repo)
    monkeypatch.setattr(install, "PINS", repo / "requirements")
    monkeypatch.setattr(install, "VENV", repo / ".venv")
    monkeypatch.setattr(install, "BIN", repo / ".venv" / "bin")
    monkeypatch.setattr(install, "STAMP", repo / ".venv" / "labkit-pins.json")
    monkeypatch.setattr(install, "torch_source", lambda *_: [])
    monkeypatch.setattr(install, "__file__", str(repo / "backend.py"))
    monkeypatch.setenv("LABKIT_ENGINE", "none")
    run = install.run

    def with_our_uv(command, environment, fix):
        """Neither the half minute that pip takes to install itself, nor a network."""
        if "venv" in command:
            run([*command, "--without-pip"], environment, fix)
        elif command[1:3] == ["-m", "pip"]:
            (repo / ".venv" / "bin" / "uv").symlink_to(Path(sys.executable).parent / "uv")
        else:
            run([*command, "--offline"], environment, fix)

    monkeypatch.setattr(install, "run", with_our_uv)
    install.main()
    assert install.STAMP.exists()
    done = subprocess.run([".venv/bin/labkit"], cwd=repo, env={}, capture_output=True, text=True, check=False)
    assert done.stdout == "started\n", done.stderr


BACKEND = """
import base64, hashlib, os, zipfile


def get_requires_for_build_editable(config_settings=None):
    return []


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    info = "labkit-0.dist-info"
    files = {
        "labkit.pth": os.getcwd() + "\\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: labkit\\nVersion: 0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": "[console_scripts]\\nlabkit = labkit:main\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(os.path.join(wheel_directory, "labkit-0-py3-none-any.whl"), "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "labkit-0-py3-none-any.whl"
"""


@pytest.mark.parametrize("folder", [*FOLDERS, "lab #1", "my lab", "lab%20x", "Übung", "lab@home"])
def test_a_step_that_fails_below_an_odd_folder_says_that_the_path_may_be_the_matter(install, monkeypatch, tmp_path, folder):
    monkeypatch.setattr(install, "REPO", tmp_path / folder)
    (tmp_path / folder).mkdir()
    with pytest.raises(SystemExit) as stopped:
        install.run([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ), "check the network")
    said = str(stopped.value)
    assert f"the path {tmp_path / folder} has " in said
    assert "check the network" not in said


def test_a_plain_path_is_not_blamed(install):
    assert install.advice("check the network", Path("/home/anna-b/work_1/icl.v2")) == "check the network"
    assert install.odd_in(Path("/home/a b/#c")) == "' ' and '#'"


def test_a_folder_in_which_python_makes_no_environment_is_named_before_anything_is_tried(install, monkeypatch, tmp_path):
    monkeypatch.setattr(install, "REPO", tmp_path / f"lab{os.pathsep}1")
    monkeypatch.setattr(install, "run", lambda *_: pytest.fail("tried"))
    with pytest.raises(SystemExit, match=r"the path .*lab:1 has ':' in it.*Fix: move the clone"):
        install.main()


def python_sh(path, **environment):
    return subprocess.run(
        ["/bin/sh", str(REPO / "setup" / "python.sh")],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_python(folder, name, works):
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {0 if works else 1}\n")
    path.chmod(0o755)
    return path


def test_a_supported_python_is_found_under_any_of_its_names(tmp_path):
    fake_python(tmp_path, "python3.11", works=False)
    right = fake_python(tmp_path, "python3.13", works=True)
    assert python_sh(tmp_path).stdout.strip() == str(right)


def test_other_pythons_are_named_with_what_to_install(tmp_path):
    fake_python(tmp_path, "python3", works=False)
    done = python_sh(tmp_path)
    assert done.returncode == 1
    assert "No Python 3.11, 3.12 or 3.13 found" in done.stderr
    assert "Fix:" in done.stderr


def test_a_python_named_by_hand_is_used_or_refused(tmp_path):
    assert python_sh(tmp_path, PYTHON=sys.executable).stdout.strip() == sys.executable
    done = python_sh(tmp_path, PYTHON="/no/such/python")
    assert done.returncode == 1
    assert "PYTHON=/no/such/python" in done.stderr
