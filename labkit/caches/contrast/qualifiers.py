"""Words that restrict what is asked: a question without any word of a group asks for something wider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.reading import Reading

QUALIFIERS: Mapping[str, str] = {
    word: name
    for name, words in (
        ("web", "online website web app internet"),
        ("shop", "store shop person"),
        ("only", "only sale except just"),
        ("all", "all every any"),
        ("before", "before until"),
        ("after", "after once"),
        ("later", "later afterwards"),
        ("without", "without"),
        ("first", "first"),
        ("last", "last"),
        ("again", "again twice"),
    )
    for word in words.split()
}


def qualifiers(a: Reading, b: Reading) -> Iterator[Difference]:
    """The restrictions that only one of the two questions has."""
    narrow_a, narrow_b = ({QUALIFIERS[word]: word for word in r.words if word in QUALIFIERS} for r in (a, b))
    if narrow_a.keys() != narrow_b.keys():
        yield Difference(
            "qualifier",
            " ".join(word for name, word in narrow_a.items() if name not in narrow_b),
            " ".join(word for name, word in narrow_b.items() if name not in narrow_a),
        )
