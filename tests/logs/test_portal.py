"""The portal's log: the same for the same seed, and read back whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.logs import QUESTIONS, ask, read_log, write_portal
from labkit.request import InvalidValue


def test_it_is_repeatable_and_every_question_but_one_is_answered_from_it(tmp_path: Path) -> None:
    first, second, other = (tmp_path / "a folder" / name for name in ("one.jsonl", "two.jsonl", "three.jsonl"))
    count = write_portal(first, seed=1, duration_s=30)
    assert write_portal(second, seed=1, duration_s=30) == count
    write_portal(other, seed=2, duration_s=30)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    assert [path.name for path in sorted(first.parent.iterdir())] == ["one.jsonl", "three.jsonl", "two.jsonl"]
    log = read_log(first)
    assert (len(log), log.bad, log.duplicates, log.notes) == (count, (), (), ())
    for chapter in QUESTIONS:
        found, told = ask(chapter, first)
        assert told == log.told
        assert (found.number is None) == (chapter == "05"), chapter


def test_conversations_grow_and_who_leaves_asks_no_more(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_portal(path, seed=3, duration_s=60)
    sessions: dict[str, list] = {}
    for call in read_log(path).calls:
        sessions.setdefault(call.session, []).append(call)
    assert any(len(calls) > 1 for calls in sessions.values())
    for calls in sessions.values():
        assert len({call.tenant for call in calls}) == 1
        assert [len(call.turns) for call in calls] == [2 + 2 * i for i in range(len(calls))]
        assert all(call.status == "completed" for call in calls[:-1])
        assert all(call.usage.cached_tokens > 1000 for call in calls[1:]), "its own first turn is in the cache"


def test_no_time_no_log(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="duration_s is 0"):
        write_portal(tmp_path / "x", duration_s=0)
    with pytest.raises(InvalidValue, match="asks nothing of a log"):
        ask("42", tmp_path)
