"""The book's pictures: what they draw is what an independent count gives, and every reader can read them."""

from __future__ import annotations

import heapq
import math
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.request import InvalidValue, Usage
from labkit.workbook import PALETTE
from labkit.workbook.pictures import (
    CaseCall,
    FormOfAnswer,
    Kept,
    Picture,
    Station,
    answer_ribbons,
    batch_fill,
    cache_partitions,
    cascade,
    case_calls,
    draw_picture,
    kv_heads,
    prefix_blocks,
    request_path,
    roofline,
    stream_timeline,
)
from tests.workbook.drawn import (
    ARRIVALS,
    ASKED,
    CALLS,
    ENTRIES,
    EXAMPLES,
    FORMS,
    LENGTHS,
    MODEL,
    PROMPTS,
    SEATS,
    STATIONS,
    SVG,
    boxes,
    place,
    scope,
    texts,
    tree,
)

every_picture = pytest.mark.parametrize("name", EXAMPLES)


@every_picture
def test_a_picture_is_an_image_with_a_name_and_words(name: str) -> None:
    picture = EXAMPLES[name]
    root = tree(picture)
    assert root.get("role") == "img"
    named = {e.get("id"): e for e in root.iter() if e.get("id")}
    title, words = (named[id] for id in root.get("aria-labelledby", "").split())
    assert (title.tag, words.tag) == (f"{SVG}title", f"{SVG}desc")
    assert title.text
    assert words.text == picture.alt
    used = set(re.findall(r"url\(#([^)]+)\)", picture.svg))
    assert used <= set(named)
    assert picture.text == f"{picture.alt}\n{picture.caption}"
    assert "<script" not in picture.html


@every_picture
def test_words_are_large_enough_and_in_the_ink_of_the_page(name: str) -> None:
    found = list(tree(EXAMPLES[name]).iter(f"{SVG}text"))
    assert found
    assert tree(EXAMPLES[name]).get("viewBox", "").split()[2] == "720"
    for text in found:
        assert float(text.get("font-size", 0)) >= 12
        assert text.get("fill") is None, "the style sheet says currentColor"
        assert text.get("opacity") is None


@every_picture
def test_colours_are_those_of_the_book(name: str) -> None:
    used = {e.get(kind) for e in tree(EXAMPLES[name]).iter() for kind in ("fill", "stroke")} - {None}
    plain = {colour for colour in used if colour and not colour.startswith("url(")}
    assert plain <= {*PALETTE.values(), "currentColor", "none"}


def test_parts_of_two_pictures_on_a_page_have_different_names() -> None:
    ids = [e.get("id") for picture in EXAMPLES.values() for e in tree(picture).iter() if e.get("id")]
    assert len(ids) == len(set(ids))


def test_a_still_picture_has_no_button_and_a_moving_one_waits_for_it() -> None:
    moving = {name.split(",")[0] for name, picture in EXAMPLES.items() if picture.moves}
    assert moving == {"batch", "stream"}
    for picture in EXAMPLES.values():
        assert ('type="checkbox"' in picture.html) == picture.moves
        assert "checked=" not in picture.html


def test_drawing_shows_html_beside_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    draw_picture(EXAMPLES["cascade"])
    assert EXAMPLES["cascade"].alt in capsys.readouterr().out


def test_a_picture_without_words_is_refused() -> None:
    with pytest.raises(InvalidValue, match="needs its alt"):
        Picture("<svg/>", " ", "x")


# ------------------------------------------------------------------ the numbers drawn


def blocks_of(prompts: dict[str, list[str]], block: int) -> list[list[tuple[str, ...] | int]]:
    """Each prompt's blocks by vLLM's rule, in words: a full block is named by all tokens up to its end, if an earlier prompt
    left it and at least one token of the prompt is computed anew; any other block is a new one."""
    known: set[tuple[str, ...]] = set()
    found, new = [], 0
    for tokens in prompts.values():
        row: list[tuple[str, ...] | int] = []
        ends = [tuple(tokens[:end]) for end in range(block, len(tokens) + 1, block)]
        hits = 0
        while hits < min(len(ends), (len(tokens) - 1) // block) and ends[hits] in known:
            hits += 1
        row += ends[:hits]
        for _ in range(-(-len(tokens) // block) - hits):
            new += 1
            row.append(new)
        found.append(row)
        known |= set(ends)
    return found


def drawn_blocks(picture: Picture) -> tuple[int, int, int]:
    """(blocks in prompts, of them shared, blocks in memory)."""
    labels = [words for words, *_ in texts(picture) if words.startswith("block ")]
    bold = [e for e in tree(picture).iter(f"{SVG}text") if e.get("font-weight") and (e.text or "").startswith("block ")]
    return len(labels) - len(bold), sum("shared" in words for words in labels), len(bold)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=9), min_size=1, max_size=5),
    st.integers(2, 4),
)
def test_blocks_are_shared_as_a_count_by_hand_says(prompts: list[list[str]], block: int) -> None:
    given_ = {f"p{i}": tokens for i, tokens in enumerate(prompts)}
    rows = blocks_of(given_, block)
    hits = sum(isinstance(id, tuple) for row in rows for id in row)
    total, shared, held = drawn_blocks(prefix_blocks(given_, block))
    assert total == sum(map(len, rows))
    assert held == total - hits
    assert (shared == 0) == (hits == 0)


def test_the_example_shares_two_blocks_and_a_date_at_the_start_shares_none() -> None:
    assert drawn_blocks(prefix_blocks(PROMPTS, 4)) == (12, 4, 10)
    assert "12 blocks of prompts take 10 in memory: 2 of these are shared" in prefix_blocks(PROMPTS, 4).caption
    assert drawn_blocks(prefix_blocks({"a": list("wxyz"), "b": list("wxyz")}, 4))[1] == 0, "one token is computed anew"


def spans_static(lengths: list[int], seats: int) -> list[tuple[int, int]]:
    found, start = [], 0
    for first in range(0, len(lengths), seats):
        batch = lengths[first : first + seats]
        found += [(start, start + length) for length in batch]
        start += max(batch)
    return found


def spans_continuous(lengths: list[int], seats: int) -> list[tuple[int, int]]:
    free, found = [0] * seats, []
    for length in lengths:
        start = heapq.heappop(free)
        heapq.heappush(free, start + length)
        found.append((start, start + length))
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=10), st.integers(1, 5), st.sampled_from(["static", "continuous"]))
def test_bars_are_where_a_count_by_hand_puts_them(lengths: list[int], seats: int, policy: str) -> None:
    spans = (spans_static if policy == "static" else spans_continuous)(lengths, seats)
    last = max(end for _, end in spans)
    if last > 45:
        return
    picture = batch_fill(lengths, seats, [policy])
    ticks = {int(words): x for words, x, _ in texts(picture) if words.isdigit()}
    origin, scale = ticks[0], (ticks[max(ticks)] - ticks[0]) / max(ticks)
    for job, (start, stop) in enumerate(spans):
        x, _ = place(picture, "ABCDEFGHIJ"[job])
        assert (x - origin) / scale == pytest.approx((start + stop) / 2, abs=0.01)
    empty = seats * last - sum(lengths)
    assert f"{last} steps {policy}, with {empty} of {seats * last} places empty" in picture.caption


def test_no_two_requests_sit_on_one_seat_at_once() -> None:
    picture = batch_fill(LENGTHS, SEATS, ["continuous"])
    colours = {PALETTE[name] for name in ("blue", "orange", "green", "pink", "sky")}
    bars = sorted((y, x, x + width) for colour in colours for x, y, width, _ in boxes(picture, colour))
    assert len(bars) == len(LENGTHS)
    assert len({y for y, *_ in bars}) == SEATS
    assert all(a[2] <= b[1] for a, b in pairwise(bars) if a[0] == b[0])


@pytest.mark.parametrize(("queries", "pairs"), [(8, 8), (8, 2), (8, 1), (12, 3), (32, 8)])
def test_heads_are_drawn_one_by_one(queries: int, pairs: int) -> None:
    root = tree(kv_heads(queries, pairs))
    rects = [e for e in root.iter(f"{SVG}rect") if e.get("fill") in PALETTE.values()]
    round_ones = [e for e in rects if float(e.get("rx", 0)) == float(e.get("width", 0)) / 2]
    assert len(round_ones) == queries
    # a K and a V each: the KV heads, the row of what each query head would keep, and the row of what is kept
    assert len(rects) - queries == 2 * (pairs + queries + pairs)
    assert len([e for e in root.iter(f"{SVG}rect") if e.get("stroke-dasharray")]) == queries - pairs
    assert f"keeps {pairs} of {queries} pairs" in kv_heads(queries, pairs).caption


@pytest.mark.parametrize(("share", "up"), [(0.0, 0), (0.27, 27), (1.0, 100)])
def test_a_cascade_counts_calls_and_answers(share: float, up: int) -> None:
    picture = cascade(share, ["valid JSON"])
    assert f"100 answers take {100 + up} calls" in picture.caption
    shown = {words for words, *_ in texts(picture)}
    assert (f"{100 - up} pass" in shown) == (up < 100)
    assert (f"{up} fail" in shown) == (up > 0)


def test_bands_of_a_cascade_are_as_thick_as_their_shares() -> None:
    areas = [
        re.findall(r"[\d.]+", e.get("d", "")) for e in tree(cascade(0.25, ["x"])).iter(f"{SVG}path") if e.get("fill-opacity")
    ]
    whole, _, passed, up = [[float(v) for v in area[1::2]] for area in areas]
    assert max(passed) - min(passed) == pytest.approx(0.75 * (max(whole) - min(whole)))
    assert up[3] - up[0] == up[2] - up[1] == pytest.approx(0.25 * (max(whole) - min(whole)))


def test_only_the_askers_partition_is_searched_and_only_todays_entry_is_given() -> None:
    shown = [words for words, *_ in texts(cache_partitions(ENTRIES, ASKED))]
    assert (shown.count("searched"), shown.count("not searched")) == (1, 3)
    assert [words for words in shown if words.startswith("✓")] == ["✓ Where is my bag?"]
    assert [words for words in shown if words.startswith("✗")] == ["✗ Where is my bag? (older era)"]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pq"), st.integers(0, 1), st.sampled_from("xy")), min_size=1),
    st.tuples(st.sampled_from("ab"), st.sampled_from("pq"), st.integers(0, 1), st.sampled_from("xy")),
)
@settings(max_examples=40, deadline=None)
def test_what_is_given_agrees_in_all_four(
    entries: list[tuple[str, str, int, str]], asked: tuple[str, str, int, str]
) -> None:
    def kept(one: tuple[str, str, int, str]) -> Kept:
        return Kept(scope(one[0], one[1]), one[3], one[2])

    shown = [words for words, *_ in texts(cache_partitions([kept(one) for one in entries], kept(asked)))]
    assert sum(words.startswith("✓") for words in shown) == entries.count(asked)
    elsewhere = sum(one[3] == asked[3] and one[:2] != asked[:2] for one in entries)
    assert f"other partitions: {elsewhere};" in cache_partitions([kept(one) for one in entries], kept(asked)).caption


def test_the_roofline_rises_in_proportion_and_is_flat_beyond_its_corner() -> None:
    picture = roofline(MODEL, decode=(1, 16), prefill=2048)
    corner = MODEL.weights_s / MODEL.linear_s
    assert f"Up to {corner:,.0f} tokens" in picture.caption
    assert f"16 at once: {16 / corner:.1%} of the roof" in picture.caption
    one, sixteen = [(float(e.get("cx", 0)), float(e.get("cy", 0))) for e in tree(picture).iter(f"{SVG}circle")]
    (prefill,) = [e for e in tree(picture).iter(f"{SVG}rect") if e.get("fill") == PALETTE["red"]]
    decade_y = place(picture, "100")[1] - place(picture, "1 k")[1]
    decade_x = (place(picture, "64")[0] - place(picture, "4")[0]) / math.log10(16)
    assert (one[1] - sixteen[1]) / decade_y == pytest.approx(math.log10(16), abs=1e-3)
    assert (sixteen[0] - one[0]) / decade_x == pytest.approx(math.log10(16), abs=1e-3)
    roof = place(picture, "1 k")[1] - 4.5 - decade_y * math.log10(1 / MODEL.linear_s / 1000)
    assert float(prefill.get("y", 0)) + 6 == pytest.approx(roof, abs=0.1)


def test_levers_stand_in_their_order_between_the_code_and_the_engine() -> None:
    picture = request_path(STATIONS, engine="vLLM")
    down = ["your code", *(station.name for station in STATIONS), "vLLM"]
    heights = [place(picture, name)[1] for name in down]
    assert heights == sorted(heights)
    assert [words for words, *_ in texts(picture)].count("may answer: what is") == sum(s.answers for s in STATIONS)


def test_bars_of_calls_are_as_long_as_their_tokens() -> None:
    picture = case_calls(CALLS)
    read, wrote = boxes(picture, PALETTE["blue"]), boxes(picture, PALETTE["orange"])
    assert len(read) == len(wrote) == len(CALLS) + 1  # and the legend's
    for (_, _, a, _), (_, _, b, _), call in zip(read, wrote, CALLS, strict=False):
        assert a / b == pytest.approx(call.usage.input_tokens / call.usage.output_tokens, rel=1e-2)
        assert a / read[0][2] == pytest.approx(call.usage.input_tokens / 212, rel=1e-3)
    lost = (388 + 16 + 510 + 12) / (216 + 404 + 429 + 740 + 522)
    assert f"answers of 2 of them are thrown away, with {lost:.0%} of the tokens" in picture.caption


@pytest.mark.parametrize(
    ("cap", "left"),
    [
        (9, ["its answer is cut away", "its answer is cut away", "wrong anyway", "cut behind its answer"]),
        (147, ["whole", "cut behind its answer", "wrong anyway", "whole"]),
    ],
)
def test_what_a_cap_leaves_of_each_form_is_said(cap: int, left: list[str]) -> None:
    assert [form.left(cap) for form in FORMS] == left
    still = sum(words in ("whole", "cut behind its answer") for words in left)
    assert f"still there in {still} of them" in answer_ribbons(FORMS, cap).caption


def test_moments_of_a_stream_stand_at_their_seconds() -> None:
    picture = stream_timeline(ARRIVALS, ARRIVALS[9])
    second = place(picture, "1")[0] - place(picture, "0")[0]
    ticks = [e for e in tree(picture).iter(f"{SVG}path") if e.get("stroke") == PALETTE["orange"]]
    at = [float(re.findall(r"[\d.]+", e.get("d", ""))[0]) for e in ticks]
    assert [(x - place(picture, "0")[0]) / second for x in at] == pytest.approx(ARRIVALS, abs=1e-3)
    assert {"first piece: 0.35 s", "first useful piece: 0.89 s", "last piece: 2.69 s"} <= {
        words for words, *_ in texts(picture)
    }


def test_a_stream_that_is_of_use_only_when_whole_is_not_praised() -> None:
    assert "the reader can act after 0.89 s (square) in place of 2.69 s" in stream_timeline(ARRIVALS, ARRIVALS[9]).caption
    assert "of use only when it is whole, after 2.69 s" in stream_timeline(ARRIVALS, ARRIVALS[-1]).caption


def test_a_stream_of_less_than_a_second_is_told_in_milliseconds():
    picture = stream_timeline([0.0143, 0.0209, 0.0277], 0.0209)
    assert "can act after 20.9 ms (square) in place of 27.7 ms" in picture.caption
    assert {"milliseconds", "first piece: 14.3 ms"} <= {words for words, *_ in texts(picture)}


# ------------------------------------------------------------------ what cannot be drawn


@pytest.mark.parametrize(
    ("drawn", "named"),
    [
        (lambda: FormOfAnswer("text", 9, 5, 12), "must not go back"),
        (lambda: answer_ribbons([], 9), "0 forms"),
        (lambda: kv_heads(8, 3), "8 query heads and 3 KV heads"),
        (lambda: kv_heads(64, 8), "up to 32"),
        (lambda: prefix_blocks({}), "at least one"),
        (lambda: prefix_blocks({"a": ["x"]}, 0), "blocks of 0 tokens"),
        (lambda: prefix_blocks({"a": ["unreasonably"] * 12}), "use shorter ones"),
        (lambda: prefix_blocks({"a": ["x"] * 21}), "6 blocks of 4"),
        (lambda: batch_fill([], 2), "0 requests"),
        (lambda: batch_fill([1], 2, ["dynamic"]), "dynamic"),
        (lambda: batch_fill([46], 2), "46 steps"),
        (lambda: cascade(1.1, ["x"]), "1.1"),
        (lambda: cascade(0.1, []), "0 checks"),
        (lambda: cascade(0.1, ["a check whose name is a whole sentence"]), "say it in fewer letters"),
        (lambda: cache_partitions([], ASKED), "entries is empty"),
        (lambda: roofline(MODEL, decode=()), "decode is"),
        (lambda: roofline(MODEL, prefill=0), "prefill 0"),
        (lambda: request_path([]), "0 levers"),
        (lambda: request_path([Station("x" * 99, "y")]), "fewer letters"),
        (lambda: case_calls([CaseCall("a", "b", Usage(0, 0))]), "a token or more"),
        (lambda: CaseCall("a", "b", Usage(1, 1), "lost"), "'lost'"),
        (lambda: stream_timeline([], 0), "arrivals are"),
        (lambda: stream_timeline([2.0, 1.0], 2.0), "in order"),
        (lambda: stream_timeline([1.0], 1.5), "useful is 1.5"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(drawn: object, named: str) -> None:
    assert callable(drawn)
    with pytest.raises(InvalidValue, match=re.escape(named)):
        drawn()


def test_pictures_need_no_library_that_takes_seconds() -> None:
    code = "import sys, labkit.workbook.pictures; print(*{'altair', 'transformers', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
