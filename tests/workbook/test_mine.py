"""The learner's copies, in clones that git itself made."""

import subprocess

import pytest

from labkit.workbook.mine import lay_out, outdated, renewal

NAME = "00_start_here"


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def publish(folder, text):
    for name in (NAME, "01_cost_anatomy", f"solutions/{NAME}"):
        path = folder / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", text)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """What is published, and a learner's clone of it."""
    published, clone = tmp_path / "published", tmp_path / "clone"
    (published / "notebooks" / "src").mkdir(parents=True)
    (published / "notebooks" / "src" / f"{NAME}.py").write_text("# source")
    (published / ".gitignore").write_text("/mine/\n")
    git(published, "init", "-q", "-b", "main")
    publish(published, "first version")
    git(tmp_path, "clone", "-q", str(published), str(clone))
    monkeypatch.setenv("LABKIT_ROOT", str(clone))
    return published, clone


def test_a_clone_in_which_somebody_worked_stays_clean_and_can_be_pulled(course):
    published, clone = course
    assert lay_out() == ()
    worked_in, unread = (clone / "mine" / f"{name}.ipynb" for name in (NAME, "01_cost_anatomy"))
    worked_in.write_text("my answers")
    assert git(clone, "status", "--porcelain") == ""
    publish(published, "second version")
    git(clone, "pull", "-q", "--ff-only")
    assert outdated(NAME)
    assert lay_out() == (NAME,)
    assert worked_in.read_text() == "my answers"
    assert unread.read_text() == "second version"
    assert (clone / "mine" / "solutions" / f"{NAME}.ipynb").read_text() == "second version"
    assert f"mine/{NAME}.ipynb" in renewal(NAME)
    # As `renewal` says: renamed, and started again.
    worked_in.rename(worked_in.with_stem("mine_of_may"))
    assert lay_out() == ()
    assert worked_in.read_text() == "second version"
    assert not outdated(NAME)
    assert git(clone, "status", "--porcelain") == ""


def test_nothing_is_overwritten_when_the_list_of_originals_is_lost(course):
    _, clone = course
    lay_out()
    (clone / "mine" / f"{NAME}.ipynb").write_text("my answers")
    (clone / "mine" / ".originals.json").write_text("torn{")
    assert NAME in lay_out()
    assert (clone / "mine" / f"{NAME}.ipynb").read_text() == "my answers"


def test_without_copies_nothing_is_outdated(course):
    assert not outdated(NAME)
    assert not outdated("99_none")
