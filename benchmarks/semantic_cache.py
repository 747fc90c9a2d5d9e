"""What a semantic look-up costs, compared with a bare one and with GPTCache, and how often each acceptance is wrong.

    python -m benchmarks.semantic_cache [--entries 10000] [--rounds 5] [--peer FOLDER]

First table: look-ups that hit, embedding included, one after the other. The same encoder, entries and questions are used for
all, in turns. "bare" is encode and FAISS search and nothing else. GPTCache runs if it can be imported, from FOLDER if given:
`pip install --target FOLDER --no-deps gptcache==0.1.44 "sqlalchemy<2.1" cachetools greenlet` (its own dependencies would
replace this lab's). Half of the questions are asked as they are stored, half in lower case, so that the contrast check is
timed, too.

Second table: false hits (wrong answers per hit) at equal hit rates on the lab's labelled questions. Thresholds and curves
are fitted on the calibration part; the test part has other topics, names, products, cities and order numbers.

Third table (`--hard` for it alone): the committed hard pairs (`labkit.lab.hard`), by kind, at a threshold of 0.9. Of
the pairs that differ it shows the share that would be served; of the pairs that do not differ, the share that would not be
served. "score" uses the vectors alone. "GPTCache" is its default evaluation of the same vectors (SearchDistanceEvaluation,
threshold 0.8). `--before FILE` adds an earlier version of the contrast check, from a module with `differences`.

Measured on 2026-11-28 (2 cores that other jobs kept busy, load 4 to 6): a look-up in 10,000 entries takes 1.11 × the bare
one. A contrast check took 0.9 ms per pair, and its smaller forerunner 0.5 ms, when each text was read for the first time. Of
the hard pairs that differ, 46% are served by the score at 0.9, 25% with the earlier check, none with this one, 99% by
GPTCache; of those that do not, 15%, 22%, 15% and 0% are lost. The check was developed on both parts. torch's dynamic int8
does not give a usable faster encoder: vectors of the same text agree to 0.87 at worst, and 22% have another neighbour.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np

from labkit.caches import (
    Asked,
    CacheControl,
    SemanticCache,
    StaticThreshold,
    Store,
    Verified,
    asked_of,
    calibrated_threshold,
    fit_curve,
)
from labkit.caches.contrast import differences
from labkit.caches.rehearsal import Rehearsal, rehearse
from labkit.caches.repeats import Plan
from labkit.caches.streams import Aside, decode
from labkit.embeddings import Embedder, embedder
from labkit.lab import hard_pairs
from labkit.lab.paraphrases import Part, pairs, traffic
from labkit.request import Chunk, Completion, Done, Message, Request, Timing, Usage, clock


def texts(n: int) -> list[str]:
    """`n` different questions of the test part. Raises `SystemExit` when there are not as many."""
    found: dict[str, None] = {}
    for pair in pairs("test", 5 * n, seed=5):
        found[pair.cached.text] = None
        found[pair.new.text] = None
        if len(found) >= n:
            return list(found)[:n]
    raise SystemExit(f"only {len(found)} different questions can be made; ask for fewer --entries")


def ours(folder: Path, encoder: Embedder, asked: Sequence[str], vectors: np.ndarray) -> Callable[[str], bool]:
    """A look-up in the lab's semantic cache, kept in a file and filled with `asked`; it says whether a question hits."""
    store = Store(folder / "cache.db", limit_bytes=2**30)
    cache = SemanticCache(store, encoder, StaticThreshold(0.95), verify=0)

    async def fill() -> None:
        now = clock.unix_now()
        for text, vector in zip(asked, vectors, strict=True):
            question = _asked(text)
            answer = Completion.of([Chunk(f"answer to {text}", 0.0)], Done(Usage(50, 10), Timing(0, 0, 0, 0)))
            looked = store.get(question.scope, question.key, now)
            plan = Plan(store, question.scope, question.key, CacheControl(), 0.0, now, looked, Aside("filling"))
            cache.keep(question, vector, answer, plan)

    clock.run_virtual(fill(), time.time())

    def look(text: str) -> bool:
        match = cache.look(_asked(text), cache.encode(text), time.time())
        if match.hit is None or match.hit.found.entry is None:
            return False
        chunks, _ = decode(match.hit.found.entry.value)
        return bool(chunks)

    return look


def _asked(text: str) -> Asked:
    asked = asked_of(Request((Message("user", text),), model="small", tenant="shop"))
    assert asked is not None
    return asked


def bare(encoder: Embedder, vectors: np.ndarray) -> Callable[[str], bool]:
    """A look-up that only encodes and searches."""
    index = faiss.IndexFlatIP(encoder.dimension)
    index.add(vectors)

    def look(text: str) -> bool:
        scores, _ = index.search(encoder.encode([text]), 1)
        return bool(scores[0, 0] >= 0.95)

    return look


def gptcache(folder: Path, encoder: Embedder, asked: Sequence[str]) -> Callable[[str], bool] | None:
    """A look-up in GPTCache (SQLite and FAISS, its defaults) filled with `asked`; None when it cannot be imported."""
    try:
        from gptcache import Cache, Config
        from gptcache.adapter.api import get
        from gptcache.manager import CacheBase, VectorBase, get_data_manager
        from gptcache.processor.pre import get_prompt
        from gptcache.similarity_evaluation import SearchDistanceEvaluation
    except ImportError as error:
        print(f"GPTCache is not run: {error}")
        return None
    manager = get_data_manager(
        CacheBase("sqlite", sql_url=f"sqlite:///{folder / 'gpt.db'}"),
        VectorBase("faiss", dimension=encoder.dimension, index_path=str(folder / "gpt.index")),
        max_size=len(asked) + 1,
    )
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=lambda text, **_: encoder.encode([text])[0],
        data_manager=manager,
        similarity_evaluation=SearchDistanceEvaluation(),
        config=Config(similarity_threshold=0.95),
    )
    cache.import_data(list(asked), [f"answer to {text}" for text in asked])
    return lambda text: get(text, cache_obj=cache) is not None


def lookup_table(encoder: Embedder, entries: int, rounds: int) -> None:
    """Print the milliseconds per look-up and the ratios to the bare one."""
    asked = texts(entries)
    vectors = encoder.encode(asked)
    questions = [text.lower() if i % 2 else text for i, text in enumerate(asked[:: max(1, entries // 100)][:100])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lookups = {"bare": bare(encoder, vectors), "labkit": ours(folder, encoder, asked, vectors)}
        started = time.perf_counter()
        peer = gptcache(folder, encoder, asked)
        if peer is not None:
            print(f"(GPTCache took {time.perf_counter() - started:.0f} s to take the entries in)")
            lookups["GPTCache"] = peer
        seconds: dict[str, list[float]] = defaultdict(list)
        for name_, look in lookups.items():
            hits = sum(look(text) for text in questions)
            print(f"{name_}: {hits} of {len(questions)} questions hit")
        for _ in range(rounds):
            for name_, look in lookups.items():
                started = time.perf_counter()
                for text in questions:
                    look(text)
                seconds[name_].append((time.perf_counter() - started) / len(questions))
    print(f"\n{entries} entries, {rounds} rounds of {len(questions)} look-ups, embedding included")
    print("| look-up | median ms | × bare |\n|---|---|---|")
    for name_, times in seconds.items():
        ratio = statistics.median(t / b for t, b in zip(times, seconds["bare"], strict=True))
        print(f"| {name_} | {1000 * statistics.median(times):.2f} | {ratio:.2f} |")


def static_at(rehearsal: Rehearsal, hit_rate: float) -> float:
    """False hits per hit of the fixed threshold that reaches `hit_rate` on this very traffic: the baseline at its best."""
    kept = round(hit_rate * rehearsal.questions)
    order = np.argsort(-rehearsal.scores, kind="stable")[:kept]
    return float((~rehearsal.right[order]).mean()) if kept else 0.0


def quality_table(encoder: Embedder, n: int) -> None:
    """Print the false hits of each acceptance, and of a static threshold at the same hit rate."""

    def questions(part: Part, seed: int) -> list[tuple[str, str, str]]:
        return [(q.tenant, q.text, q.answer) for q in traffic(part, n, seed, meanings_total=300, tenants=("a", "b"))]

    calibration, test = questions("calibration", 1), questions("test", 2)
    plain = rehearse(test, encoder, contrast=None)
    known, new = rehearse(calibration, encoder), rehearse(test, encoder)
    curve = fit_curve(known.scores, known.right, known.entries)
    known_plain = rehearse(calibration, encoder, contrast=None)
    print(f"\n{n} questions of two tenants, Zipf over 300 meanings; fitted on other topics, names and numbers")
    print("| acceptance | bound | hit rate | false hits | static threshold at that hit rate |\n|---|---|---|---|---|")
    for bound in (0.01, 0.02, 0.05):
        rows = {
            "calibrated threshold on scores alone": (
                plain.at(calibrated_threshold(known_plain.scores, known_plain.right, bound=bound).threshold)
            ),
            "contrast, calibrated threshold": (
                new.at(calibrated_threshold(known.scores, known.right, bound=bound).threshold)
            ),
            "contrast, verified per entry": new.learned(Verified(curve, bound)),
        }
        for name, (hit, wrong) in rows.items():
            print(f"| {name} | {bound:.0%} | {hit:.1%} | {wrong:.2%} | {static_at(plain, hit):.2%} |")


def hard_table(encoder: Embedder, threshold: float, before: Path | None) -> None:
    """Print for each kind of hard pair how often a wrong answer is served, or a right one is not."""
    chosen = hard_pairs()
    cached, new = (encoder.encode([getattr(p, side) for p in chosen]) for side in ("cached", "new"))
    scores = (cached * new).sum(axis=1)
    serves: dict[str, list[bool]] = {"score": [bool(s >= threshold) for s in scores]}
    checks = {"contrast": differences}
    if before is not None:
        spec = importlib.util.spec_from_file_location("contrast_before", before)
        if spec is None or spec.loader is None:
            raise SystemExit(f"{before} is no Python module; give the file of an earlier contrast check")
        module = sys.modules["contrast_before"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        checks = {"contrast before": module.differences} | checks
    for name, check in checks.items():
        serves[name] = [bool(s >= threshold and not check(p.cached, p.new)) for s, p in zip(scores, chosen, strict=True)]
    try:
        from gptcache.similarity_evaluation import SearchDistanceEvaluation

        evaluation = SearchDistanceEvaluation()  # squared distances go from 0 to 4; GPTCache accepts from 0.8 of the range
        low, high = evaluation.range()
        distances = ((cached - new) ** 2).sum(axis=1)
        ranks = [evaluation.evaluation({}, {"search_result": (float(d), None)}) for d in distances]
        serves["GPTCache"] = [rank >= low + 0.8 * (high - low) for rank in ranks]
    except ImportError as error:
        print(f"GPTCache is not run: {error}")
    print(f"\n{len(chosen)} hard pairs, threshold {threshold}; of those that differ: served, of those that do not: lost")
    print(f"| kind | pairs | {' | '.join(serves)} |\n|---|---|{'---|' * len(serves)}")
    for same in (False, True):
        for kind in [*sorted({p.kind for p in chosen if p.same == same}), None]:
            places = [i for i, p in enumerate(chosen) if p.same == same and kind in (p.kind, None)]
            shares = [sum(served[i] != same for i in places) / len(places) for served in serves.values()]
            label = kind or ("all that differ" if not same else "all that do not")
            print(f"| {label} ({'lost' if same else 'served'}) | {len(places)} | {' | '.join(f'{s:.0%}' for s in shares)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=6000, help="of the second table")
    parser.add_argument("--peer", help="a folder with GPTCache in it")
    parser.add_argument("--hard", action="store_true", help="only the table of hard pairs")
    parser.add_argument("--before", type=Path, help="a module with an earlier `differences`, for the table of hard pairs")
    options = parser.parse_args()
    if options.peer:
        sys.path.append(options.peer)
    faiss.omp_set_num_threads(1)  # the same for all: the lab's index does this by itself
    encoder = embedder()
    if not options.hard:
        lookup_table(encoder, options.entries, options.rounds)
        quality_table(encoder, options.questions)
    hard_table(encoder, 0.9, options.before)


if __name__ == "__main__":
    main()
