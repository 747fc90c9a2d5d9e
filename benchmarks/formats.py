"""How many tokens the same records take in each format, whether they come back, and whether a model reads them.

    python -m benchmarks.formats [--peer FOLDER] [--live] [--asked 60]

1. Tokens of five sets of records shaped as tools give them (flat orders, nested orders, products with many holes,
   reviews, one nested configuration), by every tokenizer of a language model on this machine; ratios to `json.dumps`,
   the usual way. *CSV* has nested values as JSON in a cell. *Compact* is what `labkit.shrink.Compact` takes: the least
   of minified JSON, columns and short keys, by the lab's tokenizer. *TOON* is the package of that name, in FOLDER: `pip
   install --target FOLDER --no-deps toon-format==1.2.0`. "Comes back": whether decoding gives the same values and
   types; CSV has neither types nor holes.
2. With `--live`: right answers of the lab's models, asked to extract four fields from one record in each format
   ("extract" is their one family that reads values from a text; they saw sentences in training, never records).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from labkit.engines import connect
from labkit.lab import Example, examples, grade, wilson
from labkit.request import Message, Request, complete
from labkit.shrink import Compact, records
from labkit.tokens import Tokenizer, available, tokenizer

_BRANDS = ("Gargril", "Brenflen", "Trarbe", "Calivi", "Grarpa", "Brenvi")
_GOODS = ("tent", "jacket", "backpack", "stove", "lantern", "boots")
_CITIES = ("Fordham", "Bexton", "Cronville", "Harstad", "Dilmouth")
_SAYINGS = (
    "it kept us dry through two nights of rain", "the zip stuck on the first morning", "I would buy it again for the price",
    "the seams are neat and nothing has come loose", "it is heavier than the page says", "delivery took nine days",
    "my daughter uses it every weekend", "the colour is not that of the picture", "the pegs bend in hard ground",
)  # fmt: skip
Write = Callable[[Any], str | None]


def record_sets(rng: random.Random) -> dict[str, Any]:
    """Records by their shape."""
    pick = rng.choice

    def product() -> str:
        return f"{pick(_BRANDS)} {pick(_GOODS)}"

    def order(n: int) -> dict[str, Any]:
        at = f"2026-{rng.randrange(1, 12):02d}-{rng.randrange(1, 29):02d}"
        priced = {"product": product(), "quantity": rng.randrange(1, 9), "euros": rng.randrange(900) / 4}
        return {
            "order_id": f"TS-{10_000 + n}",
            **priced,
            "city": pick(_CITIES),
            "ordered_at": at,
            "paid": rng.random() < 0.8,
        }

    def nested(n: int) -> dict[str, Any]:
        lines = [{"product": product(), "quantity": rng.randrange(1, 5)} for _ in range(rng.randrange(1, 4))]
        address = {"city": pick(_CITIES), "postcode": f"{rng.randrange(100_000):05d}", "country": "DE"}
        return {"order_id": f"TS-{20_000 + n}", "ship_to": address, "lines": lines, "note": None}

    def sparse(n: int) -> dict[str, Any]:
        names = ("weight_grams", "length_millimetres", "capacity_litres", "burn_time_minutes", "persons")
        extras = {name: rng.randrange(1, 500) for name in names if rng.random() < 0.4}
        return {"sku": f"P{n:04d}", "name": product(), **extras, **({"discontinued": None} if rng.random() < 0.5 else {})}

    def review(n: int) -> dict[str, Any]:
        said = ", and ".join(rng.sample(_SAYINGS, 5))
        return {
            "review": n,
            "stars": rng.randrange(1, 6),
            "text": f'{said[0].upper()}{said[1:]}; "{pick(_GOODS)}" is what we call it.',
        }

    def limits() -> dict[str, Any]:
        return {"enabled": rng.random() < 0.5, "limit": rng.randrange(100), "retries": 3}

    areas = ("orders", "returns", "payments", "customers")
    settings = {area: {name: limits() for name in ("read", "write", "list")} for area in areas}
    return {
        "40 flat orders": [order(n) for n in range(40)],
        "25 nested orders": {"total": 25, "orders": [nested(n) for n in range(25)]},
        "40 products, holes": [sparse(n) for n in range(40)],
        "12 reviews": [review(n) for n in range(12)],
        "one configuration": settings,
    }


def as_csv(value: Any) -> str | None:
    """Records as CSV, with what is nested as JSON; None for what is no list of records."""
    rows = value.get("orders") if isinstance(value, Mapping) else value
    if not isinstance(rows, list):
        return None
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    plain = (str, int, float)
    for row in rows:
        writer.writerow({name: cell if isinstance(cell, plain) else json.dumps(cell) for name, cell in row.items()})
    return out.getvalue()


def as_compact(value: Any) -> str:
    """What `Compact` makes of a tool's answer."""
    asked = Request((Message("tool", json.dumps(value, ensure_ascii=False)), Message("user", "?")))
    return asyncio.run(Compact().shrink(asked)).after[0].content


def writers() -> tuple[dict[str, Write], dict[str, Callable[[str], Any]]]:
    """How to write a value in each format, and how to read it back, by the format's name."""
    write: dict[str, Write] = {
        "JSON": lambda value: json.dumps(value, ensure_ascii=False),
        "JSON, indented": lambda value: json.dumps(value, ensure_ascii=False, indent=2),
        "minified": lambda value: records.minified(records.read(json.dumps(value))),
        "columns": lambda value: records.columns(records.read(json.dumps(value))),
        "short keys": lambda value: records.short_keys(records.read(json.dumps(value))),
        "Compact": as_compact,
        "CSV": as_csv,
    }
    read: dict[str, Callable[[str], Any]] = dict.fromkeys(("JSON", "JSON, indented"), json.loads)
    read |= dict.fromkeys(("minified", "columns", "short keys", "Compact"), lambda text: json.loads(records.restore(text)))
    try:
        import toon_format

        write["TOON"] = toon_format.encode
        read["TOON"] = toon_format.decode
    except ImportError as error:
        print(f"TOON is not run: {error}")
    return write, read


def same(a: Any, b: Any) -> bool:
    """Equal with their types: 1 is not 1.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def token_tables(sets: Mapping[str, Any], counts: Sequence[Tokenizer]) -> None:
    """Print a table for each tokenizer, and which formats come back."""
    write, read = writers()
    for counting in counts:
        print(
            f"\n{counting.name}: tokens, and the ratio to JSON\n| format | {' | '.join(sets)} |\n|---|{'--:|' * len(sets)}"
        )
        usual = {name: counting.count(json.dumps(value, ensure_ascii=False)) for name, value in sets.items()}
        for form, writing in write.items():
            cells = []
            for name, value in sets.items():
                text = writing(value)
                tokens = None if text is None else counting.count(text)
                cells.append("–" if tokens is None else f"{tokens:,} ({tokens / usual[name]:.2f})")
            print(f"| {form} | {' | '.join(cells)} |")
    print(f"\nComes back, with its types\n| format | {' | '.join(sets)} |\n|---|{'---|' * len(sets)}")
    for form, writing in write.items():
        back = []
        for value in sets.values():
            text = writing(value)
            back.append("–" if text is None else "yes" if form in read and _back(read[form], text, value) else "no")
        print(f"| {form} | {' | '.join(back)} |")


def _back(reading: Callable[[str], Any], text: str, value: Any) -> bool:
    try:
        return same(reading(text), value)
    except Exception as error:  # noqa: BLE001 - a peer may raise anything; it did not come back
        print(f"  ({type(error).__name__}: {error!s:.100})")
        return False


def one_record(asked: Example) -> dict[str, str]:
    """The message of an "extract" example as it is, and its record in each format."""
    value = json.loads(asked.answer)
    write, _ = writers()
    forms = {
        form: text
        for form in ("JSON", "JSON, indented", "minified", "TOON")
        if form in write and (text := write[form](value))
    }
    forms["columns (two lines)"] = "\t".join(value) + "\n" + "\t".join(map(str, value.values()))
    forms["CSV"] = as_csv([value]) or ""
    return {"the sentence that it was trained on": asked.messages[-1].content, **forms}


async def answers_table(count: int) -> None:
    """Print the share of right answers by model and format, with 95 % intervals (Wilson)."""
    asked = list(examples("test", "extract", count, 5))
    print(f"\nRight answers of {count}, with 95 % intervals\n| format | small | large |\n|---|---|---|")
    shares: dict[str, list[str]] = {}
    for name in ("small", "large"):
        engine = await connect("vllm", name)
        try:
            for form in one_record(asked[0]):
                requests = [
                    Request(
                        (*e.messages[:-1], replace(e.messages[-1], content=one_record(e)[form])), max_tokens=e.max_tokens
                    )
                    for e in asked
                ]
                told = await asyncio.gather(*(complete(engine, request) for request in requests))
                right = sum(grade(e, answer.text) for e, answer in zip(asked, told, strict=True))
                low, high = wilson(right, count)
                shares.setdefault(form, []).append(f"{right / count:.0%} ({low:.0%} to {high:.0%})")
        finally:
            await engine.aclose()
    for form, cells in shares.items():
        print(f"| {form} | {' | '.join(cells)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a folder with toon-format in it")
    parser.add_argument("--live", action="store_true", help="ask the lab's models, too")
    parser.add_argument("--asked", type=int, default=60)
    options = parser.parse_args()
    if options.peer:
        sys.path.append(options.peer)
    names = [name for name in available() if name != "minilm"]  # that one lower-cases, and is no language model's
    token_tables(record_sets(random.Random(0)), [tokenizer(name) for name in names])
    if options.live:
        asyncio.run(answers_table(options.asked))


if __name__ == "__main__":
    main()
