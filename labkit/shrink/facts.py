"""What a prompt's facts hang on, by kind: the patterns by which `labkit.shrink.protect` finds them.

They read the surface, in one pass, without a dictionary of the language. They protect too much rather than too little: all
nouns of a German text look like names, and "one of them" holds a number. What is protected costs tokens; what is lost costs
answers. Each pattern looks at a character a fixed number of times, whatever the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from labkit.shrink.trie import any_of

Kind = Literal["numbers", "dates", "names", "links", "negations", "safety"]

_BEFORE = r"(?:[€$£¥₹₽₩￥±]\s?|\b(?:EUR|USD|GBP|CHF|JPY|CNY|INR|PLN|RUB)\s)?"
_RUN = r"A-Za-z_./:#@+−±\-"
_CODE = rf"(?<![\d{_RUN}])[{_RUN}]*+\d(?:[{_RUN}\d,'’]*[{_RUN.replace('./:', '').replace('+', '')}\d+])?"
_UNITS = (
    r"(?:\s?(?:°[CF]\b|[%‰€$£¥₹₽₩￥°]|(?:EUR|USD|GBP|CHF|JPY|CNY|INR|PLN|RUB|euros?|dollars?|pounds?|cents?|percent|per cent"
    r"|kg|mg|g|lbs?|oz|km|cm|mm|m|mi|ml|l|kB|MB|GB|TB|KiB|MiB|GiB|ms|s|min|h|am|pm|a\.m\.|p\.m\.|x"
    r"|seconds?|minutes?|hours?|days?|weeks?|months?|years?|Tage?|Stunden?|jours?|heures?|días?|horas?)\b)"
    r"|[年月日号號日時时分秒点點元円圓人个個件度岁歳本枚回倍])"
)
_OTHER_FIGURES = r"[½¼¾⅓⅔⅛²³①-⑳Ⅰ-ⅿ]|[零〇一二两兩三四五六七八九十百千万萬亿億]+"
_WORDS = any_of("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands
    million millions billion billions dozen dozens half quarter once twice double triple first second third last
""")
_NUMBERS = (f"{_BEFORE}{_CODE}{_UNITS}?", _OTHER_FIGURES, _WORDS)

_MONTHS = any_of("""
    jan feb mar apr jun jul aug sep sept oct nov dec january february march april may june july august september
    october november december januar februar märz mai juni juli oktober dezember janvier février mars avril juin
    juillet août septembre octobre novembre décembre enero febrero marzo abril mayo junio julio agosto septiembre
    octubre noviembre diciembre gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre janeiro
    fevereiro março maio junho julho setembro outubro novembro dezembro maart augustus stycznia lutego marca kwietnia
    maja czerwca lipca sierpnia września października listopada grudnia января февраля марта апреля мая июня июля
    августа сентября октября ноября декабря
""")
_DAYS = any_of("""
    monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays sundays
    montag dienstag mittwoch donnerstag freitag samstag sonntag lundi mardi mercredi jeudi vendredi samedi dimanche
    today tomorrow yesterday noon midnight
""")
_DATES = (
    rf"(?<!\d)\d{{1,2}}(?:st|nd|rd|th|\.|º)?\s(?:of\s|de\s)?{_MONTHS}\.?(?:,?\s(?:de\s)?\d{{2,4}}\b)?",
    rf"{_MONTHS}\.?\s\d{{1,4}}(?:st|nd|rd|th)?\b(?:,\s\d{{4}}\b)?",
    _DAYS,
)

_UPPER = "".join(c for c in map(chr, (*range(0x41, 0x600), *range(0x1E00, 0x2000))) if c.isupper())
_NAMES = (
    rf"(?<=[\w,;:)\]”’&%\-] )(?!I\b)[{_UPPER}][\w'’\-]*+",
    rf"(?<=[(\[/“„«&\"'’\-])(?!I\b)[{_UPPER}][\w'’\-]*+",
    rf"\b[{_UPPER}][{_UPPER}&]++\b",
    r"(?<!\w)[@#]\w++",
    r"\"[^\"\n]{1,60}\"|“[^”\n]{1,60}”|„[^“\n]{1,60}“|«[^»\n]{1,60}»|`[^`\n]{1,80}`|「[^」\n]{1,60}」",
)

_LINKS = (r"\b(?:https?|ftp)://[^\s<>\"]++|\bwww\.[^\s<>\"]++", r"(?<![\w.+\-])[\w.+\-]++@[\w.\-]++")

_NO = any_of("""
    not cannot no never none nobody nothing nowhere neither nor without unless except excluding only instead against hardly
    barely fail fails refuse* deny denies denied least most fewer less more
    don't can't won't doesn't isn't aren't didn't couldn't shouldn't wouldn't wasn't weren't hasn't haven't hadn't mustn't
    needn't ain't dont cant wont doesnt isnt arent didnt couldnt shouldnt wouldnt wasnt werent hasnt havent hadnt aint
    nicht nichts kein* nie niemals niemand ohne außer nur höchstens mindestens
    ne pas jamais rien aucun aucune sans sauf seulement ni personne
    nunca jamás sin nada nadie ningun* ningún tampoco salvo excepto solo sólo solamente
    non mai niente nessun* senza tranne soltanto né
    não nem sem ninguém nenhum nenhuma exceto apenas só somente
    niet geen nooit niets zonder tenzij alleen behalve hoogstens minstens
    nigdy nikt nic bez chyba oprócz tylko żaden żadna żadne
    inte ingen aldrig utan ikke uten uden ei değil yok hiç asla
    не нет ни никогда никто ничего без кроме только нельзя ані ніколи
    δεν μην όχι ποτέ χωρίς לא אין בלי אל רק אסור
    لا ليس ليست لم لن غير بدون إلا فقط ممنوع ولا وليس ولم ولن فلا فلم بلا
""")
_NEGATIONS = (
    _NO,
    r"\bn['’](?=\w)",
    r"[不没沒無无未勿别別非莫]|ない|なく|なかっ|ません|しか|だけ|以外|只|仅|僅|除非|除了",
    r"नहीं|बिना|सिवाय|(?<!\S)(?:न|मत|केवल|सिर्फ)(?!\S)|ไม่|ห้าม|[안못](?=\s)|않|없|말고|아니|만(?=\s)",
)

_MUST = any_of(
    """must, mustn't, never, always, only if, only when, only after, only with, do not, don't, may not, can not, cannot,
    can't, should not, shouldn't, shall, forbidden, prohibited, required, mandatory, not allowed, not permitted, under
    no circumstances, refuse, warning, danger, dangerous, caution, confidential, secret, emergency, muss, müssen,
    darf, dürfen, niemals, immer, nur wenn, verboten, erforderlich, vertraulich, achtung, gefahr, doit, doivent,
    jamais, toujours, seulement si, interdit, interdite, interdits, interdites, obligatoire, ne pas, debe, deben,
    nunca, siempre, solo si, sólo si, prohibido, prohibida, obligatorio, obligatoria, deve, devono, sempre, solo se,
    vietato, vietata, devem, proibido, proibida, obrigatório, obrigatória, moet, moeten, nooit, altijd, alleen als,
    verboden, verplicht, musi, muszą, nigdy, zawsze, tylko jeśli, zabronione, должен, должна, должны, нельзя, никогда,
    всегда, запрещено, обязательно, يجب, ممنوع, لا تفعل, دائما""",
    ",",
)
_MUST_INSIDE = (
    "必须|必須|禁止|不得|严禁|嚴禁|绝不|切勿|务必|してはいけ|なければなら|絶対に|हमेशा|कभी नहीं|अनिवार्य|반드시|절대|금지"
)
_SAFETY = (_MUST, _MUST_INSIDE)

PATTERNS: Mapping[Kind, tuple[str, ...]] = {
    "numbers": _NUMBERS,
    "dates": _DATES,
    "names": _NAMES,
    "links": _LINKS,
    "negations": _NEGATIONS,
}
"""What stays, by its kind."""

SENTENCES: Mapping[Kind, tuple[str, ...]] = {"safety": _SAFETY}
"""What keeps the whole sentence that it stands in, by its kind."""
