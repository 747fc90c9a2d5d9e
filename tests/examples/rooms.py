"""What each script of examples/rooms has to print, worked out by hand from what it does, and how it is run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "examples" / "rooms"
NEEDS = re.compile(r'Needs the extra "(\w+)"\.')

PRINTS: dict[str, tuple[str, ...]] = {  # by room: each line, as it stands or as a pattern
    # A dollar an hour is the month's rate, and 0.25 a minute is 15 times that; the longer windows are nearly empty.
    "alerts": (
        r"Cusum: F1 0\.\d\d, \d+ false, \d+% of the dollars lost before it fired",
        r"PlainThreshold: F1 0\.\d\d, \d+ false, \d+% of the dollars lost before it fired",
        r"\[14\.4\] times as fast as the month allows",
    ),
    # 100 calls of 2,000 and 100 tokens at 2.50 and 10 a million; each question comes twice within a minute.
    "audit": ("0.6 USD in the log", "Response cache for exact repeats saves 0.3 of 0.6", "0 bad lines, 1 copies"),
    # Full after 4, 4 and 2 of ten. Alone in a step, the long job takes 100 steps of a tenth of a second, and the two that
    # come late wait for its end or take the seat that the short one left.
    "batching": ("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9] in calls of [4, 4, 2]", "static 11.2 s", "continuous 10.2 s"),
    # At most 9 bytes + 16 + 256 tokens read at 1, and 128 written at 100 per million; in the end 10 read and 3 written.
    "budgets": (
        "In 30 days. / up to 0.013081 needed, 0.006919 left: BudgetExhausted",
        "spent 0.00031 held 0 left 0.01969",
    ),
    # "system" is found the second time, "system" and "a" the third: 3 of 7 blocks.
    "caches": (
        "north In 30 days. 3 ()",
        "north In 30 days. 0 ('response-cache',)",
        "south In 30 days. 3 ()",
        "2 asked, 1 served",
        str(3 / 7),
    ),
    # 200 × 0.25 + 1,000 × 0.025 + 250 × 2 per million; 120,000 requests of 1,200 × 0.25 + 250 × 2 per million.
    "cost": (
        "0.000575 USD: 0.00005 fresh, 0.000025 cached, 0.0005 written",
        "openai True",
        "96.000000 USD a month",
    ),
    # Of the second and third prompt all but the last block of 16 is found: 500 + 2 × 4 new tokens, then ten steps.
    "engines": (
        *["first token after 0.061 s, all after 0.361 s"] * 3,
        "modelled",
        "refused: a modelled engine cannot be recorded: its numbers were not measured here",
    ),
    # 900 + 100 tokens for a quarter of a dollar, and an attempt of which nothing is known.
    "exports": (
        r"broken rules of FOCUS: \[\]",
        "2026-03-01 1000 Tokens 0.25 False",
        "2026-03-01 0 Tokens None True",
        r"differences: \[\]",
    ),
    # A step of n sequences: 0.03 s and 0.001 s for each.
    "experiments": (
        "How do TPOT and throughput change with company and with context?",
        r"1 at once: 32 tokens a second, 0.031 s each",
        r"8 at once: \d+ tokens a second, 0.038 s each",
    ),
    # 4,096 / 1,024; and 256 blocks / 10 blocks for 150 tokens.
    "kvcache": ("chunks 4 sequences, 600 tokens in use", "blocks 25 sequences, 3750 tokens in use"),
    "lab": (
        r"140 tasks of 7 families; \w+-test-1-0",
        "right answers: 140",
        "thought about first: 140",
        "no answers: 0",
    ),
    "latency": (
        "prefill of 1,000: 0.111 s",
        "decode of 8: 0.038 s",
        "weights are the limit below 200 tokens",
        "goodput: 1.0 answers a second",
        "median TTFT: 0.4 s",
    ),
    # 10 + 3 × 10, and 10 + 1 × 10 per million: what came before the failure was computed, too.
    "ledger": ("failed: the engine fell over", "shop completed 10 3 0.00004", "shop failed 10 1 0.00002"),
    "load": (r"(1\d\d) due, \1 answered, 0 failed", r"\{'TTFT': 0\.\d+, 'TPOT': 0.03, 'E2E': 1.5\d*\}"),
    # 125 of 126 blocks of 64 bytes begin alike: 2,000 × 125/126 in whole steps of 128 are 1,920 tokens, for 99 of 100 calls.
    # Every order is asked about twice. A call a second that takes two keeps two in flight.
    "logs": ("95.04 % []", "50.0 % ['tenant of the calls']", "2.0 calls ['deadlines']"),
    # Eight of ten have at most 15 tokens. A cap of 18 costs (107 + 18 + 20) / 10. Under a cap of 20, nine are right and cost
    # 100 + 107 + 20 in all.
    "output": (
        "cap at 15 for 80 %; cheapest: 18 at 14.5 an answer",
        re.escape("Yes, it is open. ('output:cap-again',) [2, 128]"),
        re.escape("$: a string without an end; set maxLength, or a pattern without * and +, or an enum"),
        re.escape("{'cap': 20, 'right': 0.9, 'per_correct': 25.22222222222222}"),
    ),
    # gpt-5 reads for 1.25 and 0.125 USD a million, writes for 10: 12.24 M calls of 1,208 and 39 tokens cost 23,256 USD. The
    # cache takes 0.85 · 1,208 · 1.125 off each call's input; 0.3 of the rest is 2,735; 6,000 more answers are wrong for it;
    # a batch halves 12,000.
    "portal": (
        "a stable prefix: 14139 USD a month here, 14139 alone",
        "a cache of answers: 2735 USD a month here, 6977 alone",
        "each further wrong answer is sold for 0.456 USD",
        "the batch API: 6000 USD a month here, 6000 alone",
        "True",
    ),
    "request": ("It is  40.0", "late: It is open "),
    # Refused at 0 s, answered at 2 s, and then from memory. 0.7 of the load times 3 attempts, or times 1.1.
    # 1 + 1/1 · (1000 + 180) / 1200.
    "resilience": (
        "All is well. 3 ('retry:2',) 2 attempts",
        "All is well. 0 ('idempotent',) 2 attempts",
        "2.10 of what it can carry, recovered: False",
        "0.77 of what it can carry, recovered: True",
        "paid / useful: 1.983, of output alone 1.90",
    ),
    "routing": (
        "The small. ('cascade:small',)",
        "The large. ('cascade:small>large',)",
        "The large. ('fallback:small>large',)",
    ),
    # Each key once, not twice: 109 characters of JSON are now lines of 16, 19 and 18 and two line ends.
    "shrink": (
        r"message 0 \(system\) \[white-space\] ' ': one blank is enough here",
        r"message 2 \(tool\) \[compact\] .* → .*: JSON as columns: 55 tokens, not 109",
        "TS-12346 ('shrink:Tidy', 'shrink:Compact')",
        "order city euros",
        "TS-12345 Fordham 40",
        "TS-12346 Bexton 75",
        r"\['You work at the  support desk. '\]",
    ),
    # 3 calls of 1 USD read and 2 written. From 2 calls of 1 + 1: a call more is worth 2 or, with the longer answers, 3;
    # these are worth 2 or 3.
    "spending": (
        re.escape("[['desk', '3', '3', '6', '9']]"),
        re.escape(
            "The bill rose by 5.00 USD, from 4.00 to 9.00: +2.50 because there were more requests, "
            "+2.50 because answers were longer."
        ),
    ),
    "sqlite": (re.escape("[('kept',)]"), "foreign"),
    "stacks": (
        "labkit_stack: 1",
        "shared:",
        *[".*"] * 7,
        "stack:",
        "- is: Booked",
        *[".*"] * 7,
        "engine: small",
        "",
        "True",
    ),
    "streaming": (
        "Yes. It is.  3 ('cancelled-early',)",
        "('team',) returns after 18 characters",
        "('urgent',) True after 34 characters",
        "() {'team': 'returns', 'urgent': True} after 35 characters",
        "read after 9.25 s, of which 8.0 s waiting for more",
    ),
    "embeddings": (
        r"alike: \[1\. +0\.9\d +0\.6\d*\]",
        "How late may I return a tent? In 30 days. ()",
        "How late can I return a tent? In 30 days. ('semantic-cache',)",
        "How late may I return a stove? In 30 days. ()",
    ),
    "tokens": (r"\['How', .*'\?'\] 9", r"with the marks of a chat: 1\d", "How late may I return a tent?"),
    "workbook": (r"HBox 2",),
}


def extra_of(path: Path) -> str:
    """The extra that the script says it needs; empty for the core."""
    found = NEEDS.search(path.read_text(encoding="utf-8"))
    return found[1] if found else ""


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script by `command`, in a folder of nobody's."""
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd="/", env=environment)


def check(room: str, printed: str) -> None:
    """Fail unless `printed` is what the script of `room` has to print."""
    lines = printed.rstrip("\n").split("\n")
    wanted = PRINTS[room]
    assert len(lines) == len(wanted), printed
    for line, want in zip(lines, wanted, strict=True):
        assert line == want or re.fullmatch(want, line), f"{line!r}, where {want!r} was expected"
