"""Each chapter's question against an independent count: by hand, by brute force, or by another part of the lab."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from scipy.stats import binom

from labkit.caches import calibrated_threshold, provider
from labkit.cost import price_request, self_defined
from labkit.kvcache import kv_size
from labkit.latency import SLO
from labkit.logs import (
    QUESTIONS,
    Call,
    Graded,
    Log,
    Pairs,
    attributed,
    leaving,
    memory,
    money,
    overview,
    prefixes,
    read_labels,
    repeated,
    routing,
    spare,
    threshold,
    together,
    waiting,
)
from labkit.logs.concurrency import duplicates, fill, in_flight
from labkit.logs.numbers import quantile, ratio, share
from labkit.logs.repeats import hits
from labkit.logs.shared import serve
from labkit.request import InvalidValue, Usage


def log_of(*calls: Call, **fields: object) -> Log:
    numbered = tuple(replace(call, line=i) for i, call in enumerate(calls, 1))
    return Log("x.jsonl", "JSON lines", numbered, **fields)  # type: ignore[arg-type]


def random_calls(seed: int, n: int = 80) -> list[Call]:
    rng = random.Random(seed)
    at = 0.0
    calls = []
    for _ in range(n):
        at += rng.choice((0.0, 0.1, 1.0, 5.0))
        cached = rng.randrange(50)
        reasoning = rng.randrange(5)
        calls.append(
            Call(
                0, at, "m", Usage(cached + rng.randrange(1, 100), reasoning + rng.randrange(1, 50), cached, 0, reasoning),
                ttft=rng.random(), duration=1 + 3 * rng.random(), status=rng.choice(("completed", "cancelled", "failed")),
                tenant=rng.choice("ab"), session=rng.choice("xyz"), turns=(("user", f"Q {rng.randrange(6)}?"),),
                finish=("stop", "length", "stop")[len(calls) % 3],
            )
        )  # fmt: skip
    return calls


BARE = log_of(Call(0, turns=(("user", "a"),)), Call(0, turns=(("user", "b"),)))


@pytest.mark.parametrize("chapter", ["01", "02", "03", "05", "06", "07", "08", "10", "12"])
def test_a_log_that_cannot_tell_says_what_to_log(chapter: str) -> None:
    found = QUESTIONS[chapter](BARE)
    assert found.number is None
    assert found.interval is None
    assert found.needs
    assert "cannot tell" in found.sentence
    assert found.needs[0].log in found.sentence


@pytest.mark.parametrize("chapter", sorted(QUESTIONS))
@pytest.mark.parametrize("n", [1, 2, 30])
def test_every_question_has_an_answer_of_its_chapter_for_a_whole_log(chapter: str, n: int) -> None:
    found = QUESTIONS[chapter](log_of(*(replace(call, model="gpt-4o") for call in random_calls(n, n))))
    assert found.chapter == chapter
    assert found.sentence.endswith(".")
    assert (found.number is None) == (chapter == "05")
    if found.interval is not None:
        assert found.number is not None
        assert found.interval[0] <= found.number <= found.interval[1]


# Statistics


@pytest.mark.parametrize("q", [50, 95])
@pytest.mark.parametrize("n", [1, 5, 20, 60, 500])
def test_the_interval_of_a_percentile_covers_it_by_the_binomial_sum(q: float, n: int) -> None:
    found = quantile(range(n), q)
    low = 0 if found.low is None else int(found.low) + 1  # ranks; without an end all of that side is in
    high = n + 1 if found.high is None else int(found.high) + 1
    covered = sum(binom.pmf(k, n, q / 100) for k in range(low, high))
    assert covered >= 0.95 - 1e-9


def test_too_few_values_have_no_interval_and_none_has_no_percentile() -> None:
    assert quantile([1.0, 2.0, 3.0], 95).interval is None
    assert quantile([None, None], 50) is None
    assert share(0, 0) is None
    assert share(0, 10).interval == pytest.approx((0, 1 - 0.025**0.1)), "the closed form for no hit"
    with pytest.raises(InvalidValue):
        share(3, 2)


def test_the_interval_of_a_ratio_covers_the_true_one_about_as_often_as_it_says() -> None:
    rng = random.Random(3)

    def drawn() -> tuple[float, float]:
        whole = rng.expovariate(1)
        return whole * rng.random(), whole

    samples = [ratio(drawn() for _ in range(200)) for _ in range(1000)]
    covered = sum(found.low <= 0.5 <= found.high for found in samples) / 1000
    assert 0.92 < covered < 0.97
    assert ratio([(1.0, 2.0)]).interval is None
    assert ratio([(0.0, 0.0)]) is None


# 00, 01


def test_00_adds_up() -> None:
    calls = random_calls(1)
    found = overview(log_of(*calls))
    rows = dict(found.rows)
    assert found.number == 80
    assert rows["input tokens"] == f"{sum(call.usage.input_tokens for call in calls):,}"
    assert rows["of them reasoning"] == f"{sum(call.usage.reasoning_tokens for call in calls):,}"


PRICE = self_defined("m", "2", "8", "0.5")


def test_01_shares_are_those_of_each_call_priced_alone() -> None:
    calls = random_calls(4)
    found = money(log_of(*calls), {"m": PRICE})
    costs = [price_request(call.usage, PRICE) for call in calls]
    total = sum(cost.total for cost in costs)
    unseen = sum(
        cost.total if call.status in ("cancelled", "failed") else cost.reasoning
        for cost, call in zip(costs, calls, strict=True)
    )
    assert found.number == pytest.approx(float(100 * unseen / total))
    assert dict(found.rows)["share of visible output"] == f"{100 * sum(c.visible_output for c in costs) / total:.1f} %"


def test_01_an_attempt_that_a_later_one_replaced_is_unseen_and_a_retry_that_delivered_is_not() -> None:
    one = Call(0, 0.0, "m", Usage(100, 0), status="completed", request="r", attempt=1)
    failed, again = replace(one, status="failed"), replace(one, attempt=2)
    assert money(log_of(one, again), {"m": PRICE}).number == pytest.approx(50)
    assert money(log_of(failed, again, again), {"m": PRICE}).number == pytest.approx(100 / 3)
    assert money(log_of(one, replace(again, tenant="other")), {"m": PRICE}).number == 0
    assert money(log_of(one, replace(one, shadow=True)), {"m": PRICE}).number == pytest.approx(50)


def test_01_a_model_without_a_price_is_named_and_left_out() -> None:
    known = Call(0, 0.0, "openai/gpt-4o", Usage(100, 10), status="completed", attempt=1)
    found = money(log_of(known, replace(known, model="no-such-model-9")))
    assert found.number == 0
    assert "'no-such-model-9'" in found.needs[0].lacks
    alone = money(log_of(replace(known, model="no-such-model-9")))
    assert alone.number is None
    assert "no-such-model-9" in alone.sentence


def test_01_a_long_prompt_is_priced_at_its_own_tier() -> None:
    tiered = replace(PRICE, tiers=((1000, replace(PRICE.rates, fresh_input=Decimal(4))),))
    short = Call(0, 0.0, "m", Usage(1000, 0), status="completed")
    dear = replace(short, usage=Usage(1001, 0), status="cancelled")
    assert money(log_of(short, dear), {"m": tiered}).number == pytest.approx(100 * 4004 / 6004)


# 02


def test_02_counts_who_got_what_was_promised() -> None:
    calls = random_calls(5)
    promise = SLO(ttft=0.5, e2e=3.0)
    found = waiting(log_of(*calls), promise)
    met = sum(call.status == "completed" and call.ttft <= 0.5 and call.duration <= 3 for call in calls)
    assert found.number == pytest.approx(100 * met / 80)
    assert dict(found.rows)["goodput"] == f"{met / (calls[-1].at - calls[0].at):.4g} calls a second"


def test_02_hidden_reasoning_has_no_pace_and_unknown_times_are_not_judged() -> None:
    slow = Call(0, 0.0, "m", Usage(10, 11), ttft=1.0, duration=2.0, status="completed")
    assert slow.tpot == pytest.approx(0.1)
    assert replace(slow, usage=Usage(10, 11, reasoning_tokens=1)).tpot is None
    assert replace(slow, ttft=3.0).tpot is None
    found = waiting(log_of(slow, replace(slow, ttft=None, at=1.0)), SLO(ttft=2.0))
    assert found.number == 100
    assert "of 1 call kept" in found.sentence


# 03


@pytest.mark.parametrize(
    "rules", [provider.RULES["openai, in memory"], replace(provider.RULES["openai, 24 hours"], minimum=0)]
)
def test_03_one_growing_prefix_is_served_as_the_provider_module_serves_it(rules: provider.CacheRules) -> None:
    rng = random.Random(6)
    at, calls, chains, same = 0.0, [], [], []
    for _ in range(300):
        at += rng.choice((10.0, 200.0, 400.0, 900.0))
        blocks = rng.randrange(1, 40)
        calls.append(Call(0, at, usage=Usage(128 * blocks, 1)))
        chains.append([b"%d" % i for i in range(blocks)])
        same.append(provider.Call(at, 128 * blocks, 128 * blocks, "p"))
    assert serve(calls, chains, rules) == [usage.cached_tokens for usage in provider.serve(same, rules)]


def test_03_blocks_are_equal_where_prompts_begin_alike() -> None:
    head, tokens = ("system", "x" * 6400), Usage(2000, 5)
    ask = [Call(0, float(i), "m", tokens, turns=(head, ("user", f"{i} {'y' * 200}"))) for i in range(4)]
    found = prefixes(log_of(*ask))
    data = len(("<system>\n" + "x" * 6400 + "\n<user>\n").encode())
    whole = len(f"<system>\n{head[1]}\n<user>\n0 {'y' * 200}\n".encode())
    run, blocks = data // 64, -(-whole // 64)
    served = 3 * (2000 * run // blocks // 128 * 128)
    assert found.number == pytest.approx(100 * served / 8000)
    assert dict(found.rows)["blocks sent before, whenever"] == f"{100 * 3 * run / (4 * blocks):.1f} % of {4 * blocks}"
    late = [replace(call, at=call.at * 1000) for call in ask]
    assert prefixes(log_of(*late)).number == 0
    other = [replace(call, turns=(("system", f"{i}{'x' * 6400}"), *call.turns[1:])) for i, call in enumerate(ask)]
    assert prefixes(log_of(*other)).number == 0, "one letter in front breaks every block"


def test_03_a_tokenizer_cuts_blocks_of_tokens() -> None:
    calls = [Call(0, float(i), "m", Usage(1600, 1), turns=(("user", "a" * 1590),)) for i in range(2)]
    found = prefixes(log_of(*calls), encode=lambda text: list(text.encode()))
    assert found.number == pytest.approx(100 * 1536 / 3200)
    assert dict(found.rows)["blocks are"] == "16 tokens"


def test_03_without_prompts_the_usage_tells() -> None:
    found = prefixes(log_of(*(Call(0, float(i), usage=Usage(100, 1, cached_tokens=40)) for i in range(40))))
    assert found.number == pytest.approx(40)
    assert found.needs[0].lacks == "prompts"


# 04, 05


@pytest.mark.parametrize("ttl", [0.5, 10.0, math.inf])
@pytest.mark.parametrize("seed", range(5))
def test_04_repeats_by_brute_force(seed: int, ttl: float) -> None:
    calls = random_calls(seed)
    written: list[Call] = []
    count = 0
    for call in calls:
        twins = [w for w in written if (w.tenant, w.turns) == (call.tenant, call.turns)]
        if any(call.at - twin.at < ttl for twin in twins):
            count += 1
        elif call.status == "completed":
            written.append(call)
    assert hits(calls, ttl) == count
    assert repeated(log_of(*calls), ttl).number == pytest.approx(100 * count / 80)


def test_04_tenants_share_nothing_and_case_and_marks_are_alike() -> None:
    one = Call(0, 0.0, "m", turns=(("user", "Where is my order?"),), tenant="a", status="completed")
    loud = replace(one, at=1.0, turns=(("user", "  where is MY order "),))
    found = repeated(log_of(one, loud, replace(one, at=2.0, tenant="b")))
    assert found.number == 0
    assert "33.3 % do up to case" in found.sentence


def test_04_a_threshold_from_labelled_pairs(tmp_path: Path) -> None:
    rng = random.Random(8)
    rows = [(s := rng.random(), rng.random() < (1 if s > 0.6 else 0.5)) for _ in range(2000)]
    path = tmp_path / "pairs.csv"
    path.write_text("Score,Same\n" + "".join(f"{s},{'yes' if same else 'no'}\n" for s, same in rows))
    pairs = read_labels(path)
    assert isinstance(pairs, Pairs)
    found = threshold(pairs)
    assert found.number == calibrated_threshold(*zip(*rows, strict=True), bound=0.02, first=200).threshold
    few = threshold(replace(pairs, scores=pairs.scores[:50], same=pairs.same[:50]))
    assert few.number is None
    assert "149 right ones" in few.needs[0].log, "0.98^149 is the first power below 0.05"


def test_05_a_threshold_and_its_saving_from_graded_requests(tmp_path: Path) -> None:
    rng = random.Random(9)
    path = tmp_path / "graded.csv"
    rows = [(c := rng.random(), int(rng.random() < (0.99 if c > 0.5 else 0.4)), 1) for _ in range(3000)]
    path.write_text(
        "confidence,small_right,large_right,cost_small,cost_large\n" + "".join(f"{c},{s},{b},1,10\n" for c, s, b in rows)
    )
    graded = read_labels(path)
    assert isinstance(graded, Graded)
    found = routing(graded)
    kept = [s for c, s, _ in rows if c >= found.number]
    assert sum(kept) / len(kept) >= 0.95
    saved = 1 - (3000 * 1 + (3000 - len(kept)) * 10) / 30000
    assert dict(found.rows)["saved against the large model for all"] == f"{100 * saved:.1f} %"
    assert f"saves {100 * saved:.0f} %" in found.sentence


def test_05_costs_may_be_missing_and_labels_must_be_labels(tmp_path: Path) -> None:
    path = tmp_path / "graded.jsonl"
    path.write_text('{"confidence": 0.9, "small_right": true, "large_right": true}\n' * 115)  # 59 + 4 steps of 14
    graded = read_labels(path)
    assert routing(graded).needs[0].lacks == "costs"
    for bad, name in (('"maybe"', "no label"), ("null", "no label")):
        path.write_text(f'{{"confidence": 0.9, "small_right": {bad}, "large_right": 1}}\n')
        with pytest.raises(InvalidValue, match=f"line 1: small_right is {name}"):
            read_labels(path)
    path.write_text('{"confidence": NaN, "small_right": 1, "large_right": 1}\n')
    with pytest.raises(InvalidValue, match="line 1: confidence is no finite number"):
        read_labels(path)
    path.write_text('{"timestamp": 1, "prompt_tokens": 1, "completion_tokens": 1}\n')
    assert read_labels(path) is None


# 06, 07


def test_06_is_the_share_of_output_in_cancelled_calls() -> None:
    calls = random_calls(10)
    found = leaving(log_of(*calls))
    left = sum(call.usage.output_tokens for call in calls if call.status == "cancelled")
    assert found.number == pytest.approx(100 * left / sum(call.usage.output_tokens for call in calls))


@pytest.mark.parametrize("seed", range(5))
def test_07_the_calls_in_flight_by_looking_at_every_moment_and_by_little(seed: int) -> None:
    rng = random.Random(seed)
    spans = [(s := rng.randrange(100), s + rng.randrange(20)) for _ in range(60)]  # whole seconds: moments can be tried
    levels = in_flight([(float(a), float(b)) for a, b in spans])
    first, last = min(a for a, _ in spans), max(b for _, b in spans)
    at_each = [sum(a <= t + 0.5 < b for a, b in spans) for t in range(first, last)]
    assert sum(length for _, length in levels) == last - first
    for level in set(at_each):
        assert sum(length for found, length in levels if found == level) == at_each.count(level)
    mean = sum(level * length for level, length in levels) / (last - first)
    assert mean == pytest.approx(len(spans) / (last - first) * sum(b - a for a, b in spans) / len(spans)), "L = λ·W"
    found = together(log_of(*(Call(0, float(a), "m", duration=float(b - a)) for a, b in spans)))
    assert found.number == sorted(at_each)[math.ceil(0.95 * len(at_each)) - 1]


def test_07_a_window_opens_with_the_first_call_after_the_last_closed() -> None:
    times = [0.0, 0.04, 0.05, 0.2, 0.2]
    assert fill(times, 0.05) == 3
    assert fill(times, 0.0) == 5
    assert fill(times, 1.0) == 1
    with pytest.raises(InvalidValue):
        together(BARE, window_s=-1)


@pytest.mark.parametrize("seed", range(5))
def test_07_duplicates_in_flight_by_brute_force(seed: int) -> None:
    calls = [replace(call, line=i) for i, call in enumerate(random_calls(seed))]
    ordered = sorted(calls, key=lambda call: (call.at, call.at + call.duration, call.line))
    brute = sum(
        any(other.asked == call.asked and other.at + other.duration > call.at for other in ordered[:i])
        for i, call in enumerate(ordered)
    )
    assert duplicates(calls) == (brute, 80)


def test_07_only_named_features_can_wait() -> None:
    calls = [Call(0, float(i), "m", duration=1.0, feature="tags" if i < 3 else "chat") for i in range(10)]
    found = together(log_of(*calls), patient={"tags"})
    assert dict(found.rows)["could go to a batch API"].startswith("30.0 %")
    assert any(need.lacks == "deadlines" for need in together(log_of(*calls)).needs)


# 08


def test_08_the_sessions_open_at_the_peak_times_their_kv_cache() -> None:
    def call(session: str, at: float, tokens: int) -> Call:
        return Call(0, at, "m", Usage(tokens - 10, 10), duration=1.0, session=session)

    calls = [call("a", 0, 500), call("a", 10, 1000), call("b", 5, 1000), call("c", 20, 1000)]
    found = memory(log_of(*calls))
    # Llama 3.1 8B: 2 × 8 KV heads × 128 × 32 layers × 2 bytes = 131,072 bytes a token; a and b overlap, c comes later.
    assert found.number == pytest.approx(2 * 1000 * 131_072 / 1e9)
    assert kv_size("llama-3.1-8b").sequence_bytes(1000) == 131_072_000
    assert dict(found.rows)["sessions"] == "3"
    alone = memory(log_of(*(replace(one, session="") for one in calls)))
    assert alone.needs[0].lacks == "sessions"
    bare = memory(log_of(*(replace(one, session="", duration=None) for one in calls)))
    assert bare.number is None, "without ends and sessions nobody can tell what is open at once"
    with pytest.raises(InvalidValue):
        memory(log_of(*calls), model="no-such-model")
    with pytest.raises(InvalidValue):
        memory(log_of(*calls), machine="abacus")


def test_08_a_model_too_large_for_the_machine_is_said_to_be() -> None:
    found = memory(log_of(*random_calls(3)), model="llama-3.1-70b", machine="t4")
    assert found.number is not None
    assert any("machine that holds" in need.lacks for need in found.needs)


def test_sentences_hold_no_text_of_the_log() -> None:
    calls = [
        replace(call, turns=(("user", f"my secret {i}"),), answer="classified") for i, call in enumerate(random_calls(2))
    ]
    for ask in QUESTIONS.values():
        told = repr(ask(log_of(*calls)))
        assert "secret" not in told
        assert "classified" not in told


def test_times_of_a_log_are_those_of_its_calls() -> None:
    calls = log_of(*random_calls(7))
    assert calls.seconds == max(b.at for b in calls.calls) - min(a.at for a in calls.calls)
    assert all(a.at <= b.at for a, b in pairwise(calls.calls))


def test_what_a_prompt_can_spare_is_counted_by_hand():
    warning = "Never promise what the policy does not say, whoever asks and however often they ask you for it."
    system = f"Be brief.   \n\n\n\n{warning}\n\nOpen at 9.\n\n{warning}\n"
    left = f"Be brief.\n\n{warning}\n\nOpen at 9."
    records = '[{"id": 1, "name": "Tent"}, {"id": 2, "name": "Rope"}]'
    turns = (("system", system), ("user", "What is in my order?"), ("tool", records))
    found = spare(log_of(*(Call(0, float(i), turns=turns) for i in range(40))))
    whole = sum(len(text) for _, text in turns)
    columns = "id\tname\n1\tTent\n2\tRope"
    assert found.number == pytest.approx(100 * (len(system) - len(left) + len(records) - len(columns)) / whole)
    assert dict(found.rows)["prompts looked at"] == "40 of 40"
    clean = (("system", "Be brief."), ("user", "And you?"), ("critic", "Well."))
    assert spare(log_of(Call(0, 0.0, turns=clean))).number == 0


def test_the_dollars_that_have_a_feature_are_those_of_the_calls_that_name_one():
    price = self_defined("m", input="1", output="10")
    calls = [replace(call, feature=("", "desk", "bulk")[n % 3], tenant="t") for n, call in enumerate(random_calls(8))]
    unknown = replace(calls[0], model="nobody-has-a-price")
    found = attributed(log_of(*calls, unknown, replace(calls[1], usage=None)), {"m": price})
    paid = {
        name: sum(price_request(c.usage, price).total for c in calls if c.feature == name) for name in ("", "desk", "bulk")
    }
    assert found.number == pytest.approx(100 * float((paid["desk"] + paid["bulk"]) / sum(paid.values())))
    rows = dict(found.rows)
    assert rows["unpriced calls, in no sum"] == "1"
    dearest = max(("desk", "bulk"), key=paid.get)
    assert rows["dearest by feature, of 3"].startswith(f"{dearest} {100 * float(paid[dearest] / sum(paid.values())):.1f} %")
    assert rows["dearest by tenant, of 1"] == "t 100.0 %"
    assert [need.lacks for need in found.needs] == ["price for 'nobody-has-a-price'"]


def test_a_log_whose_calls_name_no_feature_or_have_no_price_says_so():
    nameless = attributed(log_of(*random_calls(9)), {"m": self_defined("m", input="1", output="10")})
    assert nameless.number == 0
    assert [need.lacks for need in nameless.needs] == ["feature of each call"]
    unpriced = attributed(log_of(*random_calls(9)))
    assert unpriced.number is None
    assert [need.lacks for need in unpriced.needs] == ["price for 'm'"]
    assert attributed(log_of(Call(0, 0.0))).needs[0].lacks == "token counts"
