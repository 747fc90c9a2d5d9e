# ruff: noqa: E501 - tables of words, one group after another
"""Opposites and rivals: words of which a question means one or another ("before" or "after", red or blue)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.english import stem
from labkit.caches.contrast.foreign import OPPOSITES as FOREIGN
from labkit.caches.contrast.foreign import OPPOSITES_CJK
from labkit.caches.contrast.lists import listed
from labkit.caches.contrast.reading import KEPT, Reading

# Each text is a group; bars separate its sides. General English, as a support team would collect it.
OPPOSITES: Sequence[Sequence[frozenset[str]]] = [
    [frozenset(side.split()) for side in group.split(" | ")]
    for group in (
        # time and order
        "before until prior | after once since", "first earliest | last latest final", "early earlier sooner | late later",
        "start begin begins join activate enable subscribe | stop end ends leave quit deactivate disable unsubscribe",
        "today | tomorrow | yesterday", "morning | noon | afternoon | evening | midnight", "am | pm", "next | previous",
        "hourly | daily | weekly | monthly | quarterly | yearly annual annually", "past | future", "bc | ad",
        "weekday weekdays | weekend weekends", "spring | summer | autumn | winter", "old older oldest | young younger youngest",
        "monday | tuesday | wednesday | thursday | friday | saturday | sunday", "always | never", "temporary | permanent",
        "january | february | march | april | june | july | august | september | october | november | december",
        # more and less
        "minimum min least smallest lowest | maximum max most largest highest | average mean",
        "more increase higher raise up gain | less fewer decrease lower reduce down lose", "rise rises | fall falls",
        "big bigger biggest large larger | small smaller tiny | medium", "long longer longest | short shorter shortest",
        "tall taller tallest | short shorter shortest", "high | low", "wide wider | narrow narrower", "deep | shallow",
        "thick thicker | thin thinner", "light lighter lightest lightweight | heavy heavier heaviest", "full | empty",
        "grow growing | shrink shrinking", "expand | collapse contract", "all every | only some", "single | double | triple",
        "cheap cheaper cheapest | expensive dearer dearest", "fast faster fastest | slow slower slowest", "rich | poor",
        "profit profits | loss losses", "surplus | deficit", "asset assets | liability liabilities", "income | expense expenses",
        "hot hotter | cold colder", "warm | cool", "wet | dry", "strong stronger | weak weaker", "loud | quiet", "odd | even",
        # doing and undoing
        "open opens opened opening | close closes closed closing sealed unopened", "lock | unlock", "on | off", "in | out",
        "buy buying purchase purchasing | rent renting hire hiring borrow borrowing | sell selling", "lend | borrow",
        "add include included insert | remove exclude excluded delete", "allow permit | forbid block deny ban prohibit",
        "accept approve approved grant | refuse reject rejected decline revoke", "enable | disable", "connect | disconnect",
        "show publish | hide", "upload | download", "import | export", "push | pull", "send sending | receive receiving",
        "install | uninstall", "mount | unmount", "attach | detach", "mute | unmute", "follow | unfollow", "save | discard",
        "encrypt | decrypt", "encode | decode", "compress zip | decompress extract unzip", "serialize | deserialize",
        "arrive arrival arriving | depart departure departing", "enter entry | exit", "login | logout", "load | unload",
        "deposit | withdraw withdrawal", "credit | debit", "win winning | lose losing", "pass | fail", "hire | fire",
        "freeze freezing | melt thaw boil", "charge | discharge", "create | destroy delete", "build | demolish",
        "remember | forget", "teach | learn", "ask | answer", "attack | defend", "push | pop", "read | write",
        "commit | rollback", "merge | split", "undo | redo", "zoom | shrink", "avoid prevent | cause",
        # kinds
        "with | without", "public visible | private hidden", "adult adults | child children kid kids", "man men | woman women",
        "boy boys | girl girls", "male | female", "mother | father", "son | daughter", "brother | sister", "husband | wife",
        "he him | she her", "king | queen", "uncle | aunt", "yes | no", "true | false", "good | bad", "better | worse",
        "best | worst", "new unused | used old second-hand pre-owned secondhand", "right | left", "top | bottom",
        "north northern | south southern | east eastern | west western", "above over | below under underneath beneath",
        "inside indoor indoors | outside outdoor outdoors", "internal | external", "inner | outer", "front | rear", "near nearest closest | far farthest furthest",
        "horizontal | vertical", "row rows | column columns", "ascending | descending", "upper uppercase | lower lowercase",
        "client | server", "local | remote", "buyer | seller", "sender | recipient", "employer | employee",
        "landlord | tenant", "teacher | student", "doctor | patient", "parent parents | child children", "debtor | creditor",
        "domestic national | international foreign", "wired | wireless", "manual manually | automatic automatically",
        "synchronous sync | asynchronous async", "static | dynamic", "hardware | software", "positive | negative",
        "legal | illegal", "safe | dangerous unsafe", "easy | difficult hard", "hard | soft", "guilty | innocent",
        "singular | plural", "prefix | suffix", "numerator | denominator", "latitude | longitude", "encoder | decoder",
        "why | who | where | when", "breakfast | lunch | dinner supper", "vegan | vegetarian", "dog dogs | cat cats", "prepaid | postpaid",
        "black | white | red | blue | green | yellow | orange | purple | pink | brown | grey gray", "light | dark",
        "gross | net", "fixed | variable", "simple | compound", "mandatory required | optional", "unless | if",
        "python | java | javascript | ruby | golang | rust | kotlin | swift | php | perl",
        "windows | linux | macos | android | ios", "mysql | postgres postgresql | sqlite | mongodb | oracle",
        "credit | debit", "sunrise | sunset", "liquid | solid | gas", "acid | base alkaline", "kg | lb",
    )
]  # fmt: skip


def opposites(a: Reading, b: Reading) -> Iterator[Difference]:
    """One difference for each group of which one question has a word of one side, and the other a word of another side."""
    if "zh" in (a.language, b.language) or {"ja", "ko"} & {a.language, b.language}:
        yield from _in_text("".join(a.words), "".join(b.words))
    yield from _superlatives(a, b)
    seen: set[tuple[str, str]] = set()
    for sides_a, sides_b in _groups(a, b):
        for side, found in sides_a.items():
            for other, asked in sides_b.items():
                if side != other and other not in sides_a and side not in sides_b:
                    pair = " ".join(sorted(found)), " ".join(sorted(asked))
                    if pair not in seen:
                        seen.add(pair)
                        yield Difference("opposite", *pair)


def _superlatives(a: Reading, b: Reading) -> Iterator[Difference]:
    """Each question asks for another extreme: the nearest, the farthest."""
    ends_a, ends_b = ({w for w in r.words if w.endswith("est") and len(w) > 5 and w not in _NO_EXTREMES} for r in (a, b))
    only, other = sorted(ends_a - ends_b), sorted(ends_b - ends_a)
    if only and other and not any(set(_PLACES.get(x, ())) & set(_PLACES.get(y, ())) for x in only for y in other):
        yield Difference("opposite", " ".join(only), " ".join(other))


_NO_EXTREMES = frozenset(listed("request interest invest harvest honest modest protest suggest digest arrest forest latest"))


def _groups(a: Reading, b: Reading) -> Iterator[tuple[Mapping[int, set[str]], Mapping[int, set[str]]]]:
    """For each group of which both questions have words: the words of each question, by side."""
    found, asked = _sides(a), _sides(b)
    for group in sorted(found.keys() & asked.keys()):
        yield found[group], asked[group]


@lru_cache(maxsize=KEPT)
def _sides(reading: Reading) -> dict[int, dict[int, set[str]]]:
    found: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for word in reading.words:
        for group, side in _PLACES.get(word, ()) or _STEMS.get(stem(word), ()):
            found[group][side].add(word)
    return found


def _in_text(a: str, b: str) -> Iterator[Difference]:
    for one, other in OPPOSITES_CJK:
        for left, right in ((one, other), (other, one)):
            if left in a and right in b and left not in b and right not in a:
                yield Difference("opposite", left, right)


def _index(by_stem: bool) -> dict[str, tuple[tuple[int, int], ...]]:
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for group, sides in enumerate([*OPPOSITES, *FOREIGN]):
        for number, side in enumerate(sides):
            for word in side:
                if not by_stem or (len(word) > 3 and word.isascii()):
                    places[stem(word) if by_stem else word].append((group, number))
    return {word: tuple(dict.fromkeys(found)) for word, found in places.items()}


_PLACES = _index(by_stem=False)
_STEMS = _index(by_stem=True)
