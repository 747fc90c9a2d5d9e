"""Each finding against a count by hand, and the plan's sums."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.audit import Advice, Audited, AuditSettings, Fact, Remedy, audit_logs, report_html
from labkit.audit.advice import plan_of
from labkit.audit.money import Prices
from labkit.audit.prefixes import Prefixes
from labkit.cost import TOKEN_KINDS, Cost, Price, Rates, self_defined
from labkit.logs import Call
from labkit.request import InvalidValue, Usage

NINE = 1772442000.0
OWN = {"m": self_defined("m", "2", "10", cached="0.5"), "small": self_defined("small", "0.2", "1")}


def audited(tmp_path: Path, rows: list[dict], **settings: object) -> Audited:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return audit_logs([path], AuditSettings(**{"prices": OWN, **settings}))  # type: ignore[arg-type]


def line(i: int, into: int = 1000, out: int = 100, **more: object) -> dict:
    return {"timestamp": NINE + i, "model": "m", "prompt_tokens": into, "completion_tokens": out, "id": f"r{i}", **more}


def of(found: Audited, chapter: str, place: int = 0) -> Advice:
    return [one for one in found.advice if one.remedy.chapter == chapter][place]


def test_exact_repeats_save_whole_calls_of_their_own_tenant(tmp_path: Path) -> None:
    def asked(i: int, text: str, tenant: str) -> dict:
        return line(i, messages=[{"role": "user", "content": text}], tenant=tenant)

    rows = [asked(0, "a", "x"), asked(10, "a", "x"), asked(20, "a", "y"), asked(30, "A", "x"), asked(4000, "a", "x")]
    one = of(audited(tmp_path, rows), "04")
    call = Decimal("0.003")  # 1,000 × 2 + 100 × 10 per million
    assert one.low is not None
    assert one.high is not None
    assert (one.low.total, one.high.total) == (call, 2 * call)
    failed = [asked(0, "a", "x") | {"status": "failure"}, asked(1, "a", "x")]
    assert of(audited(tmp_path, failed), "04").high == Cost(), "a failed call leaves no answer"


def test_paraphrases_are_counted_in_the_sample_from_a_proven_threshold_on(tmp_path: Path) -> None:
    texts = ["how late may i return it", "until when can i return it", "what does it cost", "how late may i return it"]
    rows = [line(i, messages=[{"role": "user", "content": text}]) for i, text in enumerate(texts)]
    near = {texts[0]: (1.0, 0.0), texts[1]: (0.96, 0.28), texts[2]: (0.0, 1.0)}
    proven = {"threshold": 0.9, "encode": lambda asked: np.array([near[text] for text in asked])}
    found = of(audited(tmp_path, rows, **proven), "04", 1)
    assert Fact("paraphrases in the sample", "1 (25.0 %)") in found.facts
    assert found.low is not None
    assert found.high is not None
    assert found.low.total < Decimal("0.003") < found.high.total, "of four calls one; the interval holds it"
    silent = of(audited(tmp_path, rows), "04", 1)
    assert silent.middle is None
    assert "--pairs" in silent.needs[0].log


def test_a_stable_prefix_is_priced_by_its_providers_rules() -> None:
    rates = Rates(Decimal(2), Decimal(10), Decimal("0.5"), Decimal(2))
    prices = Prices({"m": Price("m", "openai", rates, "test", "")})
    finder = Prefixes(prices)
    shop = "You work at a shop. " * 410  # 8,200 bytes with its mark: 16 blocks of 512 that are the same for all
    for i in range(10):
        turns = (("system", shop), ("user", f"Where is order {i}? " * 20))
        finder.take(prices.seen(Call(i + 1, NINE + 60 * i, "m", Usage(2560, 10), turns=turns)))
    one = finder.advice(prices, Cost())
    whole = sum(len(f"<{role}>\n{text}\n") for role, text in turns)
    shared = 2560 * (len(f"<system>\n{shop}\n<user>\nWhere is order ") // 512) // -(-whole // 512)
    saved = 9 * (shared - shared % 128) * Decimal("1.5") / 1_000_000
    assert one.low is not None
    assert one.high is not None
    assert (one.low.total, one.high.total) == (saved, saved), "the minute between calls is short for both lifetimes"


def test_a_cache_that_is_used_already_saves_nothing_more() -> None:
    prices = Prices({"m": Price("m", "openai", OWN["m"].rates, "test", "")})
    finder = Prefixes(prices)
    for i in range(5):
        finder.take(
            prices.seen(Call(1, NINE + i, "m", Usage(2048, 10, 2048 if i else 0), turns=(("user", "same " * 1600),)))
        )
    assert finder.advice(prices, Cost()).high == Cost()


def test_without_prompts_it_is_said_which_findings_need_them(tmp_path: Path) -> None:
    found = audited(tmp_path, [line(i) for i in range(40)])
    silent = {one.remedy.name for one in found.advice if one.middle is None and one.remedy.prompts}
    assert silent == {one.remedy.name for one in found.advice if one.remedy.prompts}
    assert len(silent) == 4
    assert "These need prompts" in report_html(found)


def test_tails_beyond_the_95th_percentile_of_a_feature(tmp_path: Path) -> None:
    rows = [line(i, out=100 if i < 38 else 500, feature="desk", finish_reason="stop") for i in range(40)]
    rows += [line(100 + i, out=9000, feature="rare", finish_reason="stop") for i in range(3)]
    one = of(audited(tmp_path, rows), "10")
    assert one.low == Cost()
    assert one.high is not None
    assert one.high.total == 2 * 400 * Decimal(10) / 1_000_000
    assert one.facts[0] == Fact("desk: 19 of 20 answers have at most", "100 tokens", one.high.total)


def test_failures_and_replaced_attempts(tmp_path: Path) -> None:
    rows = [
        line(0, attempt=1, idempotency_key="k", status="success"),
        line(1, attempt=2, idempotency_key="k", status="success"),
        line(2, status="failure"),
        line(3, status="cancelled"),
        line(4, status="success"),
    ]
    one = of(audited(tmp_path, rows), "12")
    assert one.low is not None
    assert one.high is not None
    assert (one.low.total, one.high.total) == (Decimal("0.003"), 3 * Decimal("0.003"))


def test_short_calls_at_the_cheaper_models_price(tmp_path: Path) -> None:
    rows = [line(0, 500, 20), line(1, 500, 2000), line(2, 100, 5, model="small")]
    one = of(audited(tmp_path, rows), "05")
    assert one.low == Cost()
    assert one.high is not None
    assert one.high.total == (500 * Decimal("1.8") + 20 * Decimal(9)) / 1_000_000
    alone = of(audited(tmp_path, rows[:2]), "05")
    assert (alone.middle, alone.needs[0].lacks) == (None, "second model")
    assert of(audited(tmp_path, rows[:2], cheaper="small"), "05").high == one.high


def test_what_can_wait_is_for_people_to_say(tmp_path: Path) -> None:
    half = Rates(Decimal(1), Decimal(5), Decimal(1), Decimal(1))
    own = {"m": Price("m", "p", OWN["m"].rates, "test", "", batch=half)}
    rows = [line(0, feature="nightly"), line(1, feature="desk")]
    silent = of(audited(tmp_path, rows, prices=own), "07")
    assert "--patient" in silent.needs[0].log
    assert {(fact.what.split(",")[0], fact.money) for fact in silent.facts} == {
        ("nightly", Decimal("0.0015")),
        ("desk", Decimal("0.0015")),
    }
    one = of(audited(tmp_path, rows, prices=own, patient=("nightly",)), "07")
    assert one.low == one.high
    assert one.high is not None
    assert one.high.total == Decimal("0.0015")


MONEY = st.decimals(0, 1000, places=3)
COSTS = st.builds(Cost, *[MONEY] * 5)


@settings(deadline=None)
@given(COSTS, st.lists(st.tuples(*[st.fractions(0, 1)] * 5, st.sampled_from(["low", "medium", "high"])), max_size=8))
def test_the_plan_never_saves_more_than_the_bill_nor_adds_up_what_overlaps(bill: Cost, given_shares: list) -> None:
    found = []
    for i, (*shares, effort) in enumerate(given_shares):
        saved = Cost(*(getattr(bill, k) * Decimal(float(s)) for k, s in zip(TOKEN_KINDS, shares, strict=True)))
        found.append(Advice(Remedy(f"lever {i}", "03", effort, "", ""), saved * Decimal("0.5"), saved))
    plan = plan_of(found, bill)
    slack = Decimal("1e-9")
    assert sum((one.high for one in plan), Decimal(0)) <= bill.total + slack
    assert sum((one.low for one in plan), Decimal(0)) <= bill.total + slack
    assert all(one.advice.high is not None and one.high <= one.advice.high.total + slack for one in plan)
    kept = bill
    for one in plan:  # kind by kind, what each leaves
        high = one.advice.high or Cost()
        left = [
            getattr(kept, k) * (1 - getattr(high, k) / getattr(bill, k)) if getattr(bill, k) else Decimal(0)
            for k in TOKEN_KINDS
        ]
        kept = Cost(*left)
    assert abs(bill.total - sum((one.high for one in plan), Decimal(0)) - kept.total) < slack


def test_a_month_is_the_logs_time_stretched_or_what_is_said(tmp_path: Path) -> None:
    rows = [line(0), line(86400)]
    assert audited(tmp_path, rows).scale == 30
    assert audited(tmp_path, rows, month_calls=1000).scale == 500
    timeless = [{**line(0), "timestamp": None}]
    assert "tells no time" in audited(tmp_path, timeless).stretched
    with pytest.raises(InvalidValue, match="month_calls is 0"):
        AuditSettings(month_calls=0)


def test_the_report_is_one_file_without_prompts_scripts_or_network(tmp_path: Path) -> None:
    rng = random.Random(0)
    text = "Where is my <b>order</b>? " + "secret-word " * 30
    rows = [
        line(i, feature="<script>alert(1)</script>", messages=[{"role": "user", "content": text}], out=rng.randrange(1, 500))
        for i in range(50)
    ]
    found = audited(tmp_path, rows)
    page = report_html(found)
    assert "secret-word" not in page + found.to_json()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert all(mark not in page for mark in ("http://", "https://", "src=", "@import"))
    assert page.count("<table>") == page.count("<thead>") == page.count("</table>") > 5
    assert "secret-word" in report_html(audited(tmp_path, rows, show_prompts=True))
    assert json.loads(found.to_json())["calls"] == 50
