"""English words that the checks need: words of grammar, words that ask, and common words by which English is recognised."""

from __future__ import annotations

from functools import lru_cache

from labkit.caches.contrast.lists import listed

ARTICLES = frozenset(("a", "an", "the"))
# Words that open a question and can replace one another there without a change of meaning.
ASKING = frozenset(
    listed("can could may might would should do does did is are will i you please kindly pls let me know tell")
)
# Words of grammar: they carry no content of their own. Prepositions of direction are not among them (`order._DIRECTED`).
GRAMMAR = frozenset(
    ARTICLES
    | ASKING
    | frozenset(
        listed(
            "am was were be been being have has had shall must what which who whom whose when where why how that this"
            " these those there here it its he she they them their his her my your our we us of and if as so at in on"
            " for with about along now then some any just also too ok okay"
        )
    )
)
# Words at the beginning of a question: "I would like to know if", "Is it OK to", "Do you let customers".
FRAME = (
    ASKING
    | ARTICLES
    | frozenset(
        listed(
            "it ok okay am allowed possible wonder about explain need want like if to customers us quick question show find"
            " how what is there any way that which whether it's we"
        )
    )
)
# `_CLEAR`: common words that hardly occur in other languages. `_SHARED`: common words that do.
_CLEAR = frozenset(
    listed("""
    the what which who whose when where why how my your our their this that these those there is are were been being have
    has had does did can't could would should might shall must with without about into than then because while if of
    and or from by you they she it its them us not don't isn't aren't won't cannot doesn't i'm it's what's please thanks
    thank hello hey get got make made take want need know tell show find give go going come put use used using work
    works look like think say see help ask try call keep let begin start turn write read explain describe list compare
    convert calculate compute define translate summarize summarise return returns order orders ordered ship shipped
    shipping delivery deliver price cost costs much many more less most few every all both each other another same
    different new old good best better first last next before after between during until since over under again here
    only just also too very still already ever never always often allowed possible able way ways thing things people
    person man woman child day days week month year time hour minute today tomorrow number question answer word name
    email password account phone address file files data code page website online store shop money pay paid payment buy
    sell sold customer employee manager user users open close opened closed change cancel remove delete add set create
    update install run running stop send sent receive bring back out up down off long short large small big high low
    flights flight train city country house car dog cat water food book books test error function value values
    language program programming python sort table row column image text message size weight length speed temperature
    refund boots boot tent tents jacket rope stove map backpack item items gift card discount difference between right
    left true false yes enough free full empty kind dark light mode screen button happen happens mean means does
    """)
)
_SHARED = frozenset(listed("a i to do on no me as at for so in an am was will be we he or by if of it his has us let"))
_CLEAR |= (GRAMMAR | FRAME) - _SHARED
# Contractions as people type them without the apostrophe.
CONTRACTIONS = frozenset(
    listed("dont cant wont doesnt isnt arent didnt couldnt shouldnt wouldnt wasnt werent hasnt havent hadnt aint")
)


def english_share(words: list[str]) -> float:
    """The share of `words` (lower case) that is common English.

    A clear word counts 1, and a word that other languages have too counts a half.
    """
    if not words:
        return 0.0
    score = sum(1.0 if w in _CLEAR or w.endswith("n't") else 0.5 if w in _SHARED else 0.0 for w in words)
    return score / len(words)


@lru_cache(maxsize=8192)  # a language has few words
def stem(word: str) -> str:
    """The word without its commonest endings, so that "renting" is found under "rent"; crude, but the same for all words."""
    word = word.removesuffix("'s")
    if word in ("news", "always", "does", "sales"):
        return word
    for suffix in ("ing", "ed", "es", "s", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not (suffix == "s" and word.endswith("ss")):
            word = word[: -len(suffix)]
            if suffix in ("ing", "ed") and len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 3 else word
