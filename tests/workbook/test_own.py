"""The cell that ends each chapter: which file it asks, and what it shows."""

import json
from pathlib import Path

import ipywidgets as w
import pytest

from labkit.logs import QUESTIONS, write_portal
from labkit.request import InvalidValue
from labkit.workbook import own
from labkit.workbook.store import Journal
from tests.workbook.test_forms import all_of
from tests.workbook.tiny import book_of

CALL = {"timestamp": 1772442000, "model": "m", "prompt_tokens": 10, "completion_tokens": 2}


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LABKIT_LOG", raising=False)


def log_at(path, calls=3):
    path.write_text((json.dumps(CALL) + "\n") * calls, encoding="utf-8")
    return path


def use(monkeypatch, journal=None, **arguments):
    forms = []
    monkeypatch.setattr("labkit.workbook.book.show_widget", forms.append)
    book_of(journal=journal or Journal(None)).on_your_data("00", **arguments)
    (form,) = forms
    (field,), (button,), (answer,) = all_of(form, w.Text), all_of(form, w.Button), all_of(form, w.HTML)
    return field, button, answer


def test_without_a_log_the_portals_is_asked_and_written_once(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(own, "write_portal", lambda path, seed: (seen.append(path), write_portal(path, seed, 10))[1])
    use(monkeypatch)
    use(monkeypatch)
    out = capsys.readouterr().out
    assert len(seen) == 1
    assert "The portal's log, made by the lab on a modelled engine." in out
    assert "For your pull request" in out


def test_the_variable_wins_over_the_chapters_own_file(monkeypatch, capsys, tmp_path):
    mine, chapters = log_at(tmp_path / "my log.jsonl", 4), log_at(tmp_path / "ledger.jsonl", 5)
    use(monkeypatch, log=chapters)
    assert "This chapter's own file. ledger.jsonl, read as JSON lines: 5 calls" in capsys.readouterr().out
    monkeypatch.setenv("LABKIT_LOG", str(mine))
    field, _, _ = use(monkeypatch, log=chapters)
    assert "Your log. my log.jsonl, read as JSON lines: 4 calls" in capsys.readouterr().out
    assert field.value == str(mine)


def test_the_form_asks_another_file_and_the_next_chapter_remembers_it(monkeypatch, capsys, tmp_path):
    journal = Journal(None)
    mine = log_at(tmp_path / "my <b>log 📝.jsonl", 7)
    field, button, answer = use(monkeypatch, journal, log=log_at(tmp_path / "x"))
    button.click()
    assert "Write the path" in answer.value
    field.value = f' "{mine}" '
    button.click()
    assert "7 calls" in answer.value
    assert "<pre" in answer.value
    assert "<b>log" not in answer.value
    capsys.readouterr()
    use(monkeypatch, journal)
    assert "7 calls" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_said_to_be_and_stops_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LABKIT_LOG", str(tmp_path / "none"))
    use(monkeypatch)
    assert "This log was not read. cannot read the log" in capsys.readouterr().out


def test_what_cannot_be_told_names_what_to_log(capsys, tmp_path):
    html, text = own.shown("07", log_at(tmp_path / "log"), "Your log.")
    assert "Cannot be told from this log: the calls in flight at once" in html
    assert "The log has no duration of the calls. To know more, log when each answer ended." in text


def test_a_chapter_without_a_question_is_the_authors_mistake():
    with pytest.raises(InvalidValue, match="chapter '99' asks nothing of a log"):
        book_of().on_your_data()


def test_the_chapters_that_ask_are_those_there_are():
    sources = Path(__file__).parents[2].joinpath("notebooks", "src").glob("[0-9][0-9]_*.py")
    assert list(QUESTIONS) == sorted(path.name[:2] for path in sources)
