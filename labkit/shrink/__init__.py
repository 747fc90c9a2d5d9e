"""Fewer tokens in: prompts are shortened before they are sent, and every removed token can be explained.

Each shrinker is a lever around the next handler. Its `shrink` says what it would do without sending anything: a `Shrunk` has
the messages before and after and every `Cut` between them, with its reason (`explain`). `Protect` says what no shrinker may
drop.

- `Budget(tokens, (Option(shrinker, loss), …))` brings a prompt to a length by the cheapest mix, and `dry_run(request, stack,
  price, …)` shows both bills without sending.
- Prefix caches: `break_even(stream, "each" | "behind" | "once", left)` and `pays(…)` say when compression loses money,
  `BehindPrefix` and `Once` keep the cache, `both_ways(engine, requests, five_ways(shrinker))` counts it on a live engine.
- Savings: `Holdout(shrinker)` leaves a share of the keys untouched, `saving(ledger.rows(), holdout)` measures against them.
- Time: `predicted_gain` and `gains` by the latency model, the compressor's own time included; `check_gain` measures.
"""

from labkit.shrink import records
from labkit.shrink.accounts import Balance, balance
from labkit.shrink.behind import BehindPrefix, Once
from labkit.shrink.bills import Bill, DryRun, dry_run
from labkit.shrink.budget import Budget, Mix, Option, OverBudget
from labkit.shrink.chunks import ByNearness, Chunks, Passage, by_score, find_chunks
from labkit.shrink.compact import Compact
from labkit.shrink.controls import DropRandom, Truncate
from labkit.shrink.conversation import Turn, turns
from labkit.shrink.count import lab_tokens
from labkit.shrink.cut import Cut
from labkit.shrink.dropping import Prompt, WordDropper
from labkit.shrink.few_shot import FewShot
from labkit.shrink.harm import harmless
from labkit.shrink.holdout import Compared, Holdout, NoKey, Saving, TooFew, saving
from labkit.shrink.keepdrop import KeepDrop, keepdrop_card
from labkit.shrink.lost import missing
from labkit.shrink.packing import knapsack
from labkit.shrink.perplexity import ByPerplexity
from labkit.shrink.pick import Diverse, First, Nearest, Pick
from labkit.shrink.prefix import (
    FREE,
    Mode,
    Own,
    PrefixBreakEven,
    Stream,
    blocks,
    break_even,
    compressed,
    pays,
    saved_between,
    windows,
)
from labkit.shrink.profiler import (
    Checked,
    Gain,
    Took,
    check_gain,
    e2e_seconds,
    fit_time,
    gains,
    measured_seconds,
    predicted_gain,
    scorer_seconds,
)
from labkit.shrink.protect import (
    DATES,
    FACTS,
    LINKS,
    MARKED,
    NAMES,
    NEGATIONS,
    NOTHING,
    NUMBERS,
    SAFETY,
    InstructionMissing,
    Protect,
    ProtectedTextLost,
    marked,
)
from labkit.shrink.rates import Adherence, AdherenceRow, adherence, by_length
from labkit.shrink.relevance import Sentence, Sentences
from labkit.shrink.scorers import LiveScorer, Scored, Scorer, TransformersScorer
from labkit.shrink.shots import Shot, Shots
from labkit.shrink.shots_in_prompt import ShotsInPrompt
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import ShrinkStep, Shrunk
from labkit.shrink.splitting import sentences
from labkit.shrink.summaries import SummaryStore
from labkit.shrink.summary import RollingSummary, SummaryFailed, purpose
from labkit.shrink.tidy import Tidy
from labkit.shrink.token_budget import TokenBudget
from labkit.shrink.trips import BEHIND, EACH, NO_CACHE, ONCE, UNTOUCHED, Trip, both_ways, five_ways
from labkit.shrink.vectors import Remembered
from labkit.shrink.window import Window
from labkit.shrink.wording import WordSpan, words

__all__ = [
    "BEHIND",
    "DATES",
    "EACH",
    "FACTS",
    "FREE",
    "LINKS",
    "MARKED",
    "NAMES",
    "NEGATIONS",
    "NOTHING",
    "NO_CACHE",
    "NUMBERS",
    "ONCE",
    "SAFETY",
    "UNTOUCHED",
    "Adherence",
    "AdherenceRow",
    "Balance",
    "BehindPrefix",
    "Bill",
    "Budget",
    "ByNearness",
    "ByPerplexity",
    "Checked",
    "Chunks",
    "Compact",
    "Compared",
    "Cut",
    "Diverse",
    "DropRandom",
    "DryRun",
    "FewShot",
    "First",
    "Gain",
    "Holdout",
    "InstructionMissing",
    "KeepDrop",
    "LiveScorer",
    "Mix",
    "Mode",
    "Nearest",
    "NoKey",
    "Once",
    "Option",
    "OverBudget",
    "Own",
    "Passage",
    "Pick",
    "PrefixBreakEven",
    "Prompt",
    "Protect",
    "ProtectedTextLost",
    "Remembered",
    "RollingSummary",
    "Saving",
    "Scored",
    "Scorer",
    "Sentence",
    "Sentences",
    "Shot",
    "Shots",
    "ShotsInPrompt",
    "ShrinkStep",
    "Shrinker",
    "Shrunk",
    "Stream",
    "SummaryFailed",
    "SummaryStore",
    "Tidy",
    "TokenBudget",
    "TooFew",
    "Took",
    "TransformersScorer",
    "Trip",
    "Truncate",
    "Turn",
    "Window",
    "WordDropper",
    "WordSpan",
    "adherence",
    "balance",
    "blocks",
    "both_ways",
    "break_even",
    "by_length",
    "by_score",
    "check_gain",
    "compressed",
    "dry_run",
    "e2e_seconds",
    "find_chunks",
    "fit_time",
    "five_ways",
    "gains",
    "harmless",
    "keepdrop_card",
    "knapsack",
    "lab_tokens",
    "marked",
    "measured_seconds",
    "missing",
    "pays",
    "predicted_gain",
    "purpose",
    "records",
    "saved_between",
    "saving",
    "scorer_seconds",
    "sentences",
    "turns",
    "windows",
    "words",
]
