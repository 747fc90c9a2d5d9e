"""The portal's month and its chain of levers: sums are exact, and today's bill is what arithmetic by hand says."""

from __future__ import annotations

import heapq
import json
import random
import statistics
from collections import OrderedDict
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.caches import provider
from labkit.cost import api_month, price_named, price_request
from labkit.logs import write_portal
from labkit.portal import (
    PORTAL,
    Answered,
    Batched,
    Calls,
    Compressed,
    Line,
    Machines,
    Month,
    Portal,
    Prefix,
    Rented,
    Retried,
    Routed,
    Sent,
    Shortened,
    Stays,
    TakenIn,
    at_the_desk,
    chain,
    fleet,
    last,
    sent,
    today,
)
from labkit.request import InvalidValue, Usage
from labkit.workbook.paths import chapter_recording
from labkit.workbook.recorded import load, value_of

shares = st.floats(0, 1)
factors = st.floats(0, 3)
desk_levers = st.one_of(
    shares.map(lambda s: Prefix("desk", s)),
    shares.map(lambda s: Prefix("desk", s / 2, s / 3)),
    st.builds(Answered, st.just("desk"), shares, st.floats(0, 0.01)),
    st.builds(Shortened, st.just("desk"), factors, factors, shares, st.floats(0, 50)),
    st.builds(
        Compressed,
        st.just("desk"),
        st.just(1144),
        st.floats(0, 1144),
        st.sampled_from(sorted(provider.RULES)),
        shares,
        st.booleans(),
        st.floats(0, 0.001),
    ),
    st.builds(Batched, st.just("desk"), shares),
    st.builds(Retried, st.just("desk"), shares, shares),
    st.builds(
        lambda up, visible: Routed("desk", {PORTAL.desk.small: Sent(1.0, visible, 0.0), PORTAL.desk.large: Sent(up)}),
        shares,
        factors,
    ),
)
levers = st.one_of(
    desk_levers,
    st.builds(Rented, st.just("assistant"), factors),
    st.just(Stays("desk")),
    shares.map(lambda s: Batched("summaries", s)),
)


def line(lever, of="desk", wrong=0.0) -> Line:
    return Line("03", "a lever", of, lever, "a test", wrong)


def test_today_is_what_arithmetic_by_hand_says():
    month, desk = today(), PORTAL.desk
    calls = Decimal(100_000 * 4 * 30) * Decimal("1.02")
    a_call = (Decimal(1_208) * Decimal("1.25") + Decimal(39) * 10) / 1_000_000  # gpt-5: 1.25 and 10 USD a million
    assert price_named(desk.large).rates.fresh_input == Decimal("1.25")
    assert round(month.of("desk"), 6) == calls * a_call
    assert month.of("summaries") == 3_000_000 * (Decimal(1_200) * Decimal("1.25") + 250 * 10) / 1_000_000
    assert month.of("assistant") == 6 * Decimal("4.916") * 720
    assert month.usd == sum(month.of(feature) for feature in month.features)


def test_the_calculator_says_the_same_of_the_desk():
    scenario = PORTAL.scenario()
    said = api_month(scenario, price_named(PORTAL.desk.large)).total
    assert abs(said / today().of("desk") - 1) < Decimal("0.001")


def test_the_desks_lengths_are_those_of_the_labs_own_traffic():
    templates = value_of(load(chapter_recording("03_prompt_caching")).measurements["two templates"])
    prefixes = {row["prefix"] for rows in templates for row in rows if row["template"] == "instructions first"}
    assert prefixes == {PORTAL.desk.instructions}
    used = value_of(load(chapter_recording("05_model_routing")).measurements["both models"])["large used"]
    assert used.map(lambda u: u.input_tokens).mean() == pytest.approx(PORTAL.desk.question, abs=3)
    assert used.map(lambda u: u.output_tokens - u.reasoning_tokens).mean() == pytest.approx(PORTAL.desk.answer, abs=2)
    assert used.map(lambda u: u.reasoning_tokens).mean() == pytest.approx(PORTAL.desk.thinking, abs=3)


@given(st.lists(levers, max_size=8))
def test_savings_add_up_to_the_whole_change(pulled):
    lines = [line(lever) for lever in pulled]
    links = chain(lines)
    assert sum((link.saved for link in links), Decimal(0)) == today().usd - last(lines).usd
    assert all(one.after == two.before for one, two in pairwise(links))
    assert last(lines).usd >= 0


@given(levers)
def test_a_lever_that_is_alone_saves_the_same_in_the_chain(lever):
    (link,) = chain([line(lever)])
    assert link.saved == link.alone


@given(st.permutations([Prefix("desk", 0.8), Answered("desk", 0.3), Shortened("desk", 0.9, 0.5)]))
def test_levers_on_the_same_tokens_end_at_one_bill_in_every_order(order):
    ends = last([line(lever) for lever in order]).of("desk")
    desk = PORTAL.desk
    rates = price_named(desk.large).rates
    a_call = (
        desk.input * (Decimal("0.2") * rates.fresh_input + Decimal("0.8") * rates.cached_input)
        + (desk.answer * Decimal("0.9") + desk.thinking * Decimal("0.5")) * rates.visible_output
    ) / 1_000_000
    assert float(ends) == pytest.approx(float(Decimal("0.7") * a_call * PORTAL.questions * Decimal("1.02")))


def test_two_levers_save_less_together_than_each_alone():
    first, second = chain([line(Prefix("desk", 0.85)), line(Answered("desk", 0.4))])
    assert first.saved == first.alone
    assert second.saved < second.alone
    # What both claim is the cached price of the answers that are not asked for: 40 % of what the prefix saved.
    assert float(second.alone - second.saved) == pytest.approx(0.4 * float(first.saved))


def test_a_cascade_asks_below_first_and_keeps_what_the_cache_found():
    month = Prefix("desk", 0.5).made(today())
    up = Routed("desk", {PORTAL.desk.small: Sent(1.0, 0.9, 0.0), PORTAL.desk.large: Sent(0.3)}).made(month)
    small, large = up.calls[:2]
    assert (small.calls, large.calls) == (month.calls[0].calls, 0.3 * month.calls[0].calls)
    assert small.tokens["cached_input"] == large.tokens["cached_input"] == 604
    assert (small.tokens["reasoning"], large.tokens["reasoning"]) == (0, 26)


def test_a_measured_question_is_billed_with_the_instructions_before_it():
    # OpenAI counts hits in steps of 128 tokens from 1,024 on: of 1,144 tokens, 1,024 are read and 120 are fresh.
    assert at_the_desk(Usage(60, 9, reasoning_tokens=4)) == Usage(1204, 9, cached_tokens=1024, reasoning_tokens=4)


usages = st.builds(lambda read, said, thought: Usage(read, said + thought, 0, 0, thought), *3 * (st.integers(1, 300),))


@given(st.lists(st.tuples(usages, usages, st.booleans()), min_size=1, max_size=20))
def test_a_routed_month_costs_what_its_questions_were_billed(questions):
    small = [at_the_desk(one) for one, _, _ in questions]
    large = [at_the_desk(one) for _, one, _ in questions]
    went_up = [one for one, (_, _, up) in zip(large, questions, strict=True) if up]
    n = len(questions)
    mean = {kind: sum(one.by_kind()[kind] for one in large) / n for kind in large[0].by_kind()}
    month = Month((Calls("desk", PORTAL.desk.large, n, mean),), ())
    change = Routed("desk", {PORTAL.desk.small: sent(small, large), PORTAL.desk.large: sent(went_up, large)})
    by_hand = sum(price_request(one, price_named(PORTAL.desk.small)).total for one in small)
    by_hand += sum(price_request(one, price_named(PORTAL.desk.large)).total for one in went_up)
    assert float(change.made(month).usd) == pytest.approx(float(by_hand), rel=1e-6)


TERMS = PORTAL.desk.cache_terms
CACHED = Prefix("desk", cached=1024 / 1208)  # as chapter 03 leaves the desk: 1,024 of its 1,144 instructions are read


def desk_input(month: Month) -> Decimal:
    """USD for the input of one of the desk's calls, from its only kind of call."""
    (one,) = (one for one in month.calls if one.feature == "desk")
    kinds = ("fresh_input", "cached_input", "cache_write")
    return replace(one, calls=1.0, tokens={kind: one.tokens.get(kind, 0.0) for kind in kinds}).usd


@given(st.integers(0, 1144), st.sampled_from((1.0, 0.75, 0.5, 0.25)), st.booleans())
def test_a_compressed_month_costs_what_the_provider_books(left, behind, stable):
    """Against `provider.serve`: a warm cache, or a prefix of its own for each call."""
    question = round(behind * 64)
    kept = [provider.Call(at, left + question, left, "same" if stable else at) for at in range(2)]
    _, warm = provider.serve(kept, provider.RULES[TERMS])
    change = Compressed("desk", 1144, left, TERMS, behind, stable)
    said = desk_input(change.made(CACHED.made(today())))
    assert float(said) == pytest.approx(float(price_request(warm, price_named(PORTAL.desk.large)).total), abs=1e-9)


def test_shorter_instructions_cost_more_where_they_leave_the_cache():
    before = CACHED.made(today())
    below, above = (Compressed("desk", 1144, left, TERMS).made(before) for left in (915, 1030))
    behind = Compressed("desk", 1144, 1144, TERMS, behind=0.5).made(before)
    by_hand = Decimal(12_240_000) * (Decimal(915 + 64) * Decimal("1.25") + 390) / 1_000_000  # none of it cached
    assert float(below.of("desk")) == pytest.approx(float(by_hand))
    assert below.of("desk") > before.of("desk") > behind.of("desk")
    assert above.of("desk") < before.of("desk")
    # Alone, where no prefix is found anyway, the same instructions save.
    assert Compressed("desk", 1144, 915, TERMS).made(today()).of("desk") < today().of("desk")


def test_behind_a_router_each_model_keeps_its_hits():
    sent_to = {PORTAL.desk.small: Sent(1.0, fresh=1.1), PORTAL.desk.large: Sent(0.3, fresh=0.9)}
    routed = Routed("desk", sent_to).made(CACHED.made(today()))
    for one in Compressed("desk", 1144, 1100, TERMS, behind=0.5).made(routed).calls[:2]:
        assert one.tokens["cached_input"] == pytest.approx(1024)
        assert one.tokens["fresh_input"] == pytest.approx(
            76 + 0.5 * (184 * (1.1 if one.model == PORTAL.desk.small else 0.9) - 120)
        )


def test_a_cut_answer_that_is_asked_again_pays_its_prompt_twice():
    before, after = today(), Shortened("desk", 0.5, again=0.1, told=10).made(today())
    a_call = (Decimal(1_218) * Decimal("1.25") + Decimal("32.5") * 10) / 1_000_000
    assert float(after.of("desk")) == pytest.approx(12_240_000 * 1.1 * float(a_call))
    assert after.asked("desk") == pytest.approx(1.1 * before.asked("desk"))


def test_retries_that_cost_less_are_fewer_calls():
    before = today()
    after = Retried("desk", PORTAL.desk.retries, 0.005).made(before)
    assert after.asked("desk") == pytest.approx(12_000_000 * 1.005)
    assert float(after.of("desk") / before.of("desk")) == pytest.approx(1.005 / 1.02)
    assert after.of("summaries") == before.of("summaries")


def test_the_compressor_is_paid_for_every_call():
    dear = Compressed("desk", 1144, 1144, TERMS, usd_per_call=0.001).made(today())
    assert dear.of("desk") - today().of("desk") == 12_240


def test_what_was_never_measured_cannot_be_sent():
    with pytest.raises(InvalidValue, match="average holds no calls"):
        sent([Usage(1, 1)], [])


def test_wrong_answers_are_counted_on_the_questions_that_people_ask():
    _, link = chain([line(Answered("desk", 0.5)), line(Shortened("desk", 0.5), wrong=0.01)])
    assert link.wrong == 120_000
    assert link.usd_per_wrong_answer == link.saved / 120_000
    assert chain([line(Stays("desk"), wrong=-0.01)])[0].usd_per_wrong_answer is None


def test_bulk_that_is_taken_in_costs_only_the_gpus_beside():
    month = TakenIn("summaries", "assistant", 1.2).made(today())
    assert month.of("summaries") == 2 * Decimal("4.916") * 720
    assert TakenIn("summaries", "assistant").made(today()).of("summaries") == 0


def test_gpus_by_littles_law_and_the_cache_of_one_token():
    # 8 KV heads of 128, two of them, 32 layers, 2 bytes: 131,072 bytes a token (Llama 3.1 8B's configuration).
    sessions_an_hour = 100_000 * 20 / 254
    is_open = sessions_an_hour * 12 / 60
    writing = sessions_an_hour * 6 * 12 / 3600
    found = fleet(PORTAL, "fetch")
    assert fleet(PORTAL, "keep").memory / found.memory == pytest.approx(is_open / writing)
    in_main_memory = found.gpus * (2 * 2**40 / 8) / (8_000 * 131_072)  # histories
    assert found.found == pytest.approx(in_main_memory / (is_open - writing))
    assert found.memory < found.gpus < fleet(PORTAL).gpus < fleet(PORTAL).most
    assert fleet(PORTAL, "keep").recompute == 0


def test_what_a_reader_finds_again_is_what_an_lru_cache_of_that_room_finds():
    fleet_of_today = fleet(PORTAL)
    per_gpu = 157.48 / fleet_of_today.memory  # sessions that a GPU holds; so many are writing at the peak
    room = round(fleet_of_today.gpus * per_gpu - 157.48)
    steady, memoryless = (
        hits_of_lru(pause, away=1417, room=room) for pause in (lambda _: 108.0, lambda r: r.expovariate(1 / 108))
    )
    assert memoryless == pytest.approx(fleet_of_today.found, abs=0.01)
    assert steady == 0


def hits_of_lru(pause, away: int, room: int, returns: int = 60_000) -> float:
    """The share of returns that are found, where `away` readers return after a `pause` each to an LRU cache of `room`."""
    rng = random.Random(8)
    waiting = [(pause(rng) * rng.random(), reader) for reader in range(away)]
    heapq.heapify(waiting)
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for number in range(returns):
        now, reader = heapq.heappop(waiting)
        hits += reader in kept and number > returns // 3
        kept[reader] = None  # away again at once: who writes holds memory of their own
        kept.move_to_end(reader)
        if len(kept) > room:
            kept.popitem(last=False)
        heapq.heappush(waiting, (now + pause(rng), reader))
    return hits / (returns - returns // 3 - 1)


def test_memory_for_all_who_are_away_finds_all_of_them():
    plenty = replace(PORTAL, assistant=replace(PORTAL.assistant, main_memory_bytes=1e12))
    assert fleet(plenty, "fetch").found == 1
    assert fleet(plenty, "fetch").gpus == fleet(plenty, "fetch").memory
    assert fleet(plenty, "fetch").later_s == pytest.approx(8_000 * 131_072 / 64e9)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Prefix("desk", 1.2), "cached is 1.2"),
        (lambda: Prefix("desk", 0.7, 0.7), "cached \\+ written is 1.4"),
        (lambda: Answered("desk", float("nan")), "hits is nan"),
        (lambda: Answered("desk", 0.5, -1), "usd_per_call is -1"),
        (lambda: Routed("desk", {}), "name a model"),
        (lambda: Shortened("desk", again=-1), "again is -1"),
        (lambda: Retried("desk", 0.02, -1), "now is -1"),
        (lambda: Compressed("desk", 1144, -3, "openai, in memory"), "left is -3"),
        (lambda: Compressed("desk", 1144, 900, "openai"), "terms is 'openai'"),
        (lambda: Rented("desk", 2).made(today()), "'desk' rents no machines"),
        (lambda: Rented("assistant", float("inf")), "times is inf"),
        (lambda: Prefix("dekc", 0.5).made(today()), "no feature 'dekc'"),
        (lambda: TakenIn("summaries", "desk").made(today()), "'desk' rents no machines"),
        (lambda: Calls("desk", "openai/gpt-5", 1.0, {"input": 3.0}), "no kinds of tokens"),
        (lambda: Calls("desk", "openai/gpt-5", -1.0, {}), "calls of desk is -1"),
        (lambda: Machines("assistant", "h100", -1), "gpus of assistant is -1"),
        (lambda: line(Stays("desk"), of=" "), "of of a line"),
        (lambda: line(Stays("desk"), wrong=2), "wrong is 2"),
        (lambda: fleet(PORTAL, "forget"), "between is 'forget'"),
        (lambda: Portal(users=0), "users is 0"),
        (lambda: replace(PORTAL, hours=(1, 2)), "24 numbers"),
        (lambda: replace(PORTAL, wrong_answer_usd=Decimal(-1)), "wrong_answer_usd is -1"),
    ],
)
def test_bad_values_are_named(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()


def test_the_portals_log_is_of_this_desk(tmp_path):
    """Its prompts are as long as the desk's, and it names the model that the desk asks."""
    write_portal(tmp_path / "log.jsonl", duration_s=30)
    calls = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    first = [one["response"]["usage"]["prompt_tokens"] for one in calls if len(one["request"]["messages"]) == 2]
    assert statistics.median(first) == pytest.approx(PORTAL.desk.input, rel=0.05)
    assert {one["request"]["model"] for one in calls} == {PORTAL.desk.large}
