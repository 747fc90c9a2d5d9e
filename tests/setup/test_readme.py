"""What the README says of the chapters, the rooms and the commands, against the repository."""

import re
import subprocess
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")
CHAPTER = re.compile(r"^\| (\d\d) \| .* \| (ready|planned) \|$", re.MULTILINE)


def test_the_chapters_called_ready_are_the_notebooks_there_are():
    ready = [number for number, state in CHAPTER.findall(README) if state == "ready"]
    assert ready == sorted(path.name[:2] for path in (REPO / "notebooks").glob("*.ipynb"))


def test_all_eighteen_chapters_are_on_the_map():
    assert [number for number, _ in CHAPTER.findall(README)] == [f"{number:02}" for number in range(18)]


def test_the_rooms_on_the_map_are_the_rooms_there_are():
    named = set(re.findall(r"^\| `labkit\.(\w+)` \|", README, re.MULTILINE))
    assert named == {path.parent.name for path in (REPO / "labkit").glob("*/__init__.py")}


def test_every_make_command_it_names_exists():
    targets = set(re.findall(r"\bmake (\w+)", README)) - {"pytest"}
    assert {"lab", "test"} <= targets
    for target in targets:
        shown = subprocess.run(
            ["make", "--dry-run", "--always-make", target], cwd=REPO, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, f"make {target}: {shown.stderr}"


def test_its_pictures_and_links_into_the_repository_exist():
    inside = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert len(inside) > 3
    for target in inside:
        assert (REPO / target).exists(), target
