"""The bill of the whole book: the lines that the chapters' recordings hold are one chain, and its parts add up."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest

from labkit.portal import PORTAL, chain, last, today
from labkit.workbook.bill import merged, recorded
from labkit.workbook.chapters import chapters
from labkit.workbook.paths import chapter_recording

BILLED = [one for one in chapters() if one.number != "00"]  # 00 builds the meter


@pytest.fixture(scope="module")
def lines():
    return [line for line, _ in merged({}, recorded(chapter_recording(one.notebook) for one in BILLED))]


def test_every_chapter_has_a_line_and_no_feature_two_of_one_chapter(lines):
    assert {line.chapter for line in lines} == {one.number for one in BILLED}
    assert len({(line.chapter, line.of) for line in lines}) == len(lines)


def test_the_lines_add_up_to_the_whole_change_and_nothing_is_counted_twice(lines):
    links = chain(lines)
    before, after = today(), last(lines)
    assert links[0].before == before.usd
    assert all(one.after == two.before for one, two in pairwise(links))
    assert sum((link.saved for link in links), Decimal(0)) == before.usd - after.usd
    # Each line acts on its own feature: what a feature costs less is what its lines saved.
    for feature in before.features:
        of_feature = sum((link.saved for link in links if link.line.of == feature), Decimal(0))
        assert of_feature == before.of(feature) - after.of(feature), feature


def test_no_line_that_saves_is_paid_for_with_dearer_wrong_answers(lines):
    """What stands on the bill pays at the portal's price of a wrong answer; a lever that does not is `Stays`."""
    links = chain(lines)
    price = PORTAL.wrong_answer_usd
    dear = [link.line.name for link in links if link.wrong > 0 and link.saved <= Decimal(repr(link.wrong)) * price]
    assert len(links) == len(lines) >= len(BILLED)
    assert not dear
