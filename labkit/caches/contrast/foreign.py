# ruff: noqa: E501 - tables of words, one group after another
"""What the checks know of other languages: words by which they are recognised, and some words that name a difference.

To know a language here means to *recognise* it and to ignore its polite words. Its synonyms are not known, so in any other
language only a question in the same words passes. These lists only say more exactly why another question does not pass.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from labkit.caches.contrast.english import english_share
from labkit.caches.contrast.lists import listed

_MARKERS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "de": "der die das den dem ein eine einen ich du wir sie ist sind kann können wie wo was wann warum und oder nicht"
        " kein keine mit für auf zu zum zur von vom im am bei nach mein meine ihr es gibt bitte man mir wenn auch",
        "fr": "le la les un une des du de je tu il elle nous vous est sont puis peut comment où quand pourquoi quel quelle et"
        " ou ne pas avec pour sur dans mon ma mes ce cette au aux en puis-je est-ce que qui",
        "es": "el la los las un una unos de del al y o no se es son puedo puede cómo como dónde donde cuándo cuando qué que"
        " por para con en mi su este esta hay cuál sin yo lo",
        "it": "il lo la i gli le un una di del della al alla e o non è sono posso può come dove quando perché che per con in"
        " mio mia questo questa si quale senza da",
        "pt": "o a os as um uma de do da dos das no na e ou não é são posso pode como onde quando por para com em meu minha"
        " este esta que qual sem se eu",
        "nl": "de het een ik je jij wij is zijn kan kunnen hoe waar wat wanneer waarom en of niet geen met voor op naar van"
        " mijn dit dat er bij te aan uit",
    }.items()
}
POLITE: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "de": "bitte danke hallo dankeschön",
        "fr": "bonjour merci svp salut",
        "es": "hola gracias",
        "it": "ciao grazie buongiorno",
        "pt": "olá obrigado obrigada",
        "nl": "hallo dank bedankt alstublieft",
        "ru": "пожалуйста спасибо здравствуйте привет",
    }.items()
}
POLITE_CJK = re.compile(r"请问|請問|你好|您好|谢谢|謝謝|お願いします|ありがとうございます|こんにちは")
NEGATIONS = frozenset(
    listed(
        "nicht kein keine keinen nie ohne ne n' pas jamais sans no nunca sin non mai senza não nunca sem niet geen nooit zonder"
        " не нет без никогда"
    )
)
NEGATIONS_CJK = re.compile(r"不|没|沒|無|未|別|别|ない|ません|なし|안|않|없")
OPPOSITES: tuple[tuple[frozenset[str], frozenset[str]], ...] = tuple(
    (frozenset(pair.split(" | ")[0].split()), frozenset(pair.split(" | ")[1].split()))
    for pair in (
        "einschalten aktivieren | ausschalten deaktivieren abschalten", "öffnen öffnet auf | schließen schließt zu",
        "kaufen | verkaufen mieten", "vor | nach", "mit | ohne", "ein | aus",
        "activer allumer | désactiver éteindre", "ouvrir ouvre | fermer ferme", "avant | après", "avec | sans",
        "acheter | vendre louer", "activar encender | desactivar apagar", "abrir abre | cerrar cierra", "antes | después",
        "con | sin", "comprar | vender alquilar", "attivare accendere | disattivare spegnere", "aprire | chiudere",
        "prima | dopo", "ativar ligar | desativar desligar", "включить | выключить отключить", "открыть | закрыть",
        "до | после", "купить | продать",
    )
)  # fmt: skip
OPPOSITES_CJK: tuple[tuple[str, str], ...] = (
    ("开启", "关闭"), ("打开", "关闭"), ("開啟", "關閉"), ("启用", "禁用"), ("增加", "减少"), ("买", "卖"), ("上传", "下载"),
    ("之前", "之后"), ("最大", "最小"), ("有効", "無効"), ("オン", "オフ"), ("開", "閉"), ("前", "後"), ("켜", "끄"), ("上", "下"),
)  # fmt: skip
_SCRIPTS = (
    ("HIRAGANA", "ja"), ("KATAKANA", "ja"), ("HANGUL", "ko"), ("CJK", "zh"), ("CYRILLIC", "ru"), ("GREEK", "el"),
    ("ARABIC", "ar"), ("HEBREW", "he"), ("DEVANAGARI", "hi"), ("THAI", "th"), ("LATIN", "la"),
)  # fmt: skip
_ENOUGH = 0.2  # a text with this share of a language's common words counts as written in it
_SHORT = 3  # words; so few may show no language and then count as English, whose word lists are the longest


def language_of(words: list[str]) -> str:
    """The language of `words` (lower case), as two letters; "" if it is not known.

    A text mainly in another script than Latin is told by its script ("ru" for all Cyrillic), a Latin text by its common
    words. No words at all, and a few plain ASCII words with no sign of another language, count as English.
    """
    letters = "".join(words)
    if not letters:
        return "en"
    if not letters.isascii():
        scripts = [_script(c) for c in letters if not c.isascii() and c.isalpha()]
        other = [s for s in scripts if s != "la"]
        if len(other) * 2 > sum(c.isalpha() for c in letters):
            return "ja" if "ja" in other else max(sorted(set(other)), key=other.count)
    english = english_share(words)
    shares = {name: sum(w in known for w in words) / len(words) for name, known in _MARKERS.items()}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] > english and shares[best] >= _ENOUGH:
        return best
    if english >= _ENOUGH or (len(words) <= _SHORT and letters.isascii()):
        return "en"
    return ""


def is_cjk(language: str) -> bool:
    """Whether the language is written without spaces between words."""
    return language in ("zh", "ja", "th")


def _script(c: str) -> str:
    name = unicodedata.name(c, "")
    return next((code for word, code in _SCRIPTS if name.startswith(word)), "")
