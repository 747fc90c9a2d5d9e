# ruff: noqa: E501 - tables of pairs, one kind to a paragraph
"""Pairs of questions that differ in a sign, a unit, an order, an opposite…, and pairs that differ in nothing that matters.

    python -m labkit.lab.hard        # writes data/hard_pairs/pairs.csv anew

Each pair is made from a template and two fillings, so the truth is known by construction: `same` says whether one answer is
right for both. The kinds are those that users of semantic caches met as wrong hits. The fillings of each kind go to
"calibration" and "test" by turns: word lists may be extended with the first part and are judged on the second.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.data import clone_path
from labkit.lab.paraphrases import Part

FILE = clone_path("hard_pairs", "pairs.csv")


@dataclass(frozen=True, slots=True)
class HardPair:
    """A question in the cache, a new one, the kind of change between them, and whether one answer fits both."""

    kind: str
    language: str
    part: Part
    same: bool
    cached: str
    new: str


# kind, language, templates (cached | new, or one for both), fillings (left | right). {0} and {1} are the two sides.
_DIFFERENT: Sequence[tuple[str, str, Sequence[str], Sequence[str]]] = [
    ("sign", "en", ("Convert {0} C to Fahrenheit", "What is {0} plus 7? | Compute {0} plus 7.", "Is {0} a root of f?"),
     ("-40 | 40", "−12 | 12", "+3 | -3", "-0.5 | 0.5", "±2 | 2", "minus 5 | 5", "~8 | 8")),
    ("operator", "en", ("What does x {0} 5 return?", "Explain a {0} b in code. | What is a {0} b in code?"),
     ("> | <", ">= | >", "== | !=", "+ | -", "* | /", "<= | >=", "&& | ||", "<< | >>", "= | ==", "% | /", "-> | =>",
      "& | &&", "∪ | ∩", "≤ | ≥", "?? | ||", "* | **", "^ | &", "// | /", ":= | =", "⊂ | ⊃")),
    ("operator", "en", ("What does {0} do in a shell?",), ("ls > out | ls < out", "a; b | a && b", "x | y | x || y",
     "-v | -V2", "!done | done", "i++ | i--", "$@ | $#", "~/a | /a", "--force | --dry-run", "f(x) | f[x]")),
    ("emoji", "en", ("What does {0} mean in a chat?", "Can I react with {0} here? | May I react with {0} here?"),
     ("👍 | 👎", "❤️ | 💔", "😀 | 😢", "🟢 | 🔴", "✅ | ❌", "🇫🇷 | 🇮🇹", "👍🏻 | 👍🏿", "☀️ | 🌧️", "⬆️ | ⬇️", ":) | :(", "🐶 | 🐱")),
    ("currency", "en", ("What is {0} in pounds sterling?", "Is shipping free from {0}? | Do you ship for free from {0}?"),
     ("$20 | €20", "20 USD | 20 EUR", "¥500 | ₹500", "20 dollars | 20 euros", "100 CHF | 100 SEK", "A$9 | C$9", "50 yen | 50 won",
      "30 ₽ | 30 ₺", "5 pesos | 5 rupees", "€7 | 7 dollars")),
    ("unit", "en", ("Can it carry {0}?", "Is {0} too much? | Would {0} be too much?"),
     ("5 kg | 5 lb", "10 km | 10 miles", "3 MB | 3 Mb", "20 °C | 20 °F", "5 m | 5 ft", "8 GB | 8 TB", "30 minutes | 30 hours",
      "2 weeks | 2 months", "100 mW | 100 MW", "7 ml | 7 l", "5km | 5mi", "40 kWh | 40 kW", "six inches | six feet",
      "16 bits | 16 bytes", "9 am | 9 pm", "50% | 50", "3 Hz | 3 kHz", "2 million | 2 billion", "4 ms | 4 s")),
    ("order", "en", ("{0}?",),
     ("Show flights from Paris to London | Show flights from London to Paris",
      "Can a manager approve an employee's refund | Can an employee approve a manager's refund",
      "Did Rome attack Carthage first | Did Carthage attack Rome first", "How do I convert euros to yen | How do I convert yen to euros",
      "Is the red box inside the blue box | Is the blue box inside the red box", "Does Anna report to Ben | Does Ben report to Anna",
      "Can dogs chase cats here | Can cats chase dogs here", "What is 12 minus 7 | What is 7 minus 12",
      "Is 3 greater than 8 | Is 8 greater than 3", "Divide 10 by 4 | Divide 4 by 10", "Why do sharks fear whales | Why do whales fear sharks",
      "Translate this from German to Dutch | Translate this from Dutch to German", "Is Rust faster than Go | Is Go faster than Rust",
      "How do I move files from the server to my laptop | How do I move files from my laptop to the server",
      "Does the buyer pay the seller | Does the seller pay the buyer", "Sort by name and then by date | Sort by date and then by name",
      "Copy column A into column B | Copy column B into column A", "Is oil heavier than water | Is water heavier than oil",
      "Can the tenant sue the landlord | Can the landlord sue the tenant", "What did Mira tell Hera | What did Hera tell Mira",
      "Which trains go from Oslo to Bergen | Show me trains from Bergen to Oslo", "Did Mira call Hera | Has Hera called Mira",
      "Has the nurse paged the surgeon | Did the surgeon page the nurse", "Multiply 2 by 3, add 4 | Multiply 3 by 2, add 4",
      "Compute 8 / 2 + 5 | Compute 5 / 2 + 8", "Raise 2 to the power of 5 | Raise 5 to the power of 2",
      "Was Spain beaten by Chile | Was Chile beaten by Spain", "Put milk before the tea | Put the tea before milk")),
    ("number word", "en", ("Can I return {0} tents? | May I return {0} tents?", "How many items may I return, {0}?"),
     ("two | three", "one or two | three or four", "six | seven", "eleven | twelve", "twenty-one | twenty-two", "a hundred | a thousand",
      "a dozen | two dozen", "two hundred | three hundred", "four | forty", "fifteen | fifty", "one | nine", "seventeen | 18")),
    ("ordinal", "en", ("Who came {0} in the race?", "Can I skip the {0} step? | May I skip the {0} step?"),
     ("second | third", "1st | 2nd", "fifth | sixth", "first | last", "4th | 14th", "ninth | tenth")),
    ("number word", "de", ("Kann ich {0} Zelte zurückgeben?",), ("zwei | drei", "vier | fünf", "sieben | acht", "elf | zwölf")),
    ("number word", "fr", ("Puis-je rendre {0} tentes ?",), ("deux | trois", "quatre | cinq", "sept | huit", "dix | onze")),
    ("number word", "es", ("¿Puedo devolver {0} tiendas?",), ("dos | tres", "cuatro | cinco", "seis | siete", "diez | once")),
    ("number word", "zh", ("我可以退{0}顶帐篷吗？",), ("两 | 三", "四 | 五", "八 | 九", "十 | 百")),
    ("number word", "pl", ("Czy mogę zwrócić {0} namioty?",), ("dwa | trzy", "trzy | cztery")),
    ("negation", "en", ("Can I {0} the tent after a week?", "Tell me if I {0}."),
     ("return | not return", "may smoke | may not smoke", "should pay now | shouldn't pay now", "ever park here | never park here",
      "am able to log in | am unable to log in", "can swim | cannot swim", "do ship it | dont ship it")),
    ("negation", "en", ("{0}?",), ("Is this mushroom safe | Is this mushroom unsafe", "Is it legal to park here | Is it illegal to park here",
     "Is the door locked | Is the door unlocked", "Was the reply polite | Was the reply impolite", "Which drugs are toxic | Which drugs are non-toxic",
     "Tea with milk | Tea without milk", "Is nobody at home | Is somebody at home", "Do I agree | Do I disagree",
     "Are the results consistent | Are the results inconsistent", "Is the task finished | Is the task unfinished")),
    ("negation", "de", ("Kann ich das Zelt {0}?",), ("zurückgeben | nicht zurückgeben", "waschen | nie waschen", "mit Hund | ohne Hund")),
    ("negation", "fr", ("{0} rendre la tente ?",), ("Puis-je | Ne puis-je pas", "Je peux | Je ne peux pas", "Peut-on | Ne peut-on jamais")),
    ("negation", "ja", ("{0}か？",), ("返品できます | 返品できません", "犬を連れて行けます | 犬を連れて行けません")),
    ("negation", "zh", ("我{0}退货吗？",), ("可以 | 不可以", "能 | 不能")),
    ("negation", "es", ("¿{0} devolver la tienda?",), ("Puedo | No puedo", "Se puede | No se puede")),
    ("opposite", "en", ("How do I {0} dark mode? | How can I {0} dark mode?", "Tell me how to {0} it. | Explain how to {0} it."),
     ("enable | disable", "turn on | turn off", "activate | deactivate", "mute | unmute", "encrypt | decrypt", "install | uninstall",
      "show | hide", "upload | download", "import | export", "lock | unlock", "open | close", "subscribe to | unsubscribe from")),
    ("opposite", "en", ("Which is the {0} tent?", "Where is the {0} exit? | Could you say where the {0} exit is?"),
     ("cheapest | dearest", "left | right", "red | blue", "northern | southern", "largest | smallest", "upper | lower", "front | rear",
      "inner | outer", "new | old", "nearest | farthest")),
    ("opposite", "de", ("Wie kann ich den Dunkelmodus {0}?",), ("einschalten | ausschalten", "aktivieren | deaktivieren", "zeigen | verbergen")),
    ("opposite", "fr", ("Comment {0} le mode sombre ?",), ("activer | désactiver", "allumer | éteindre", "montrer | cacher")),
    ("opposite", "es", ("¿Cómo puedo {0} el modo oscuro?",), ("activar | desactivar", "encender | apagar", "subir | bajar")),
    ("opposite", "it", ("Come posso {0} la modalità scura?",), ("attivare | disattivare", "aprire | chiudere")),
    ("opposite", "pt", ("Como posso {0} o modo escuro?",), ("ativar | desativar", "ligar | desligar")),
    ("opposite", "nl", ("Hoe kan ik de donkere modus {0}?",), ("inschakelen | uitschakelen", "openen | sluiten")),
    ("opposite", "zh", ("如何{0}深色模式?", "怎么{0}通知？"), ("开启 | 关闭", "打开 | 关掉", "启用 | 禁用", "增加 | 减少")),
    ("opposite", "ja", ("ダークモードを{0}する方法", "通知を{0}するには？"), ("有効に | 無効に", "オンに | オフに", "表示 | 非表示に")),
    ("opposite", "ko", ("다크 모드를 {0} 방법은?",), ("켜는 | 끄는", "활성화하는 | 비활성화하는")),
    ("opposite", "ru", ("Как {0} тёмный режим?",), ("включить | выключить", "открыть | закрыть")),
    ("opposite", "ar", ("كيف يمكنني {0} الوضع الداكن؟",), ("تفعيل | تعطيل", "فتح | إغلاق")),
    ("opposite", "hi", ("डार्क मोड को {0} कैसे करें?",), ("चालू | बंद", "सक्रिय | निष्क्रिय")),
    ("opposite", "tr", ("Karanlık modu nasıl {0}?",), ("açarım | kapatırım", "etkinleştiririm | devre dışı bırakırım")),
    ("opposite", "pl", ("Jak {0} tryb ciemny?",), ("włączyć | wyłączyć", "otworzyć | zamknąć")),
    ("opposite", "sv", ("Hur slår jag {0} mörkt läge?",), ("på | av", "på det | av det")),
    ("opposite", "id", ("Bagaimana cara {0} mode gelap?",), ("mengaktifkan | menonaktifkan", "membuka | menutup")),
    ("opposite", "vi", ("Làm thế nào để {0} chế độ tối?",), ("bật | tắt", "mở | đóng")),
    ("opposite", "el", ("Πώς {0} τη σκοτεινή λειτουργία;",), ("ενεργοποιώ | απενεργοποιώ", "ανοίγω | κλείνω")),
    ("opposite", "th", ("ฉันจะ{0}โหมดมืดได้อย่างไร",), ("เปิด | ปิด", "เพิ่ม | ลด")),
    ("order", "de", ("{0}?",), ("Zeige Flüge von Paris nach Rom | Zeige Flüge von Rom nach Paris",
     "Darf der Mieter den Vermieter verklagen | Darf der Vermieter den Mieter verklagen")),
    ("order", "zh", ("{0}？",), ("从北京到上海的航班 | 从上海到北京的航班", "狗咬人 | 人咬狗")),
    ("order", "fr", ("{0} ?",), ("Un vol de Nice à Lyon | Un vol de Lyon à Nice", "Le chat suit le chien | Le chien suit le chat")),
    ("language name", "en", ("How do I sort a list in {0}?", "What is a pointer in {0}? | Explain pointers in {0}."),
     ("C | C++", "C++ | C#", "C | C#", "Java | JavaScript", "F# | F", ".NET | NET", "R | D", "Python 2 | Python 3", "VB.NET | VB")),
    ("version", "en", ("How do I upgrade to {0}?", "What is new in {0}? | Tell me what is new in {0}."),
     ("Python 3.10 | Python 3.11", "Python 3.1 | Python 3.10", "iOS 17 | iOS 18", "v2 | v3", "HTTP/1.1 | HTTP/2", "Windows 10 | Windows 11",
      "node 18.2.0 | node 18.2.1", "ES6 | ES2020", "USB-C | USB-A", "GPT-4 | GPT-4o", "IPv4 | IPv6")),
    ("name", "en", ("Is the tent in {0}? | Would the tent be in {0}?", "What is the capital of {0}? | Tell me the capital of {0}."),
     ("Oslo | Bergen", "Austria | Australia", "Niger | Nigeria", "Mira | Hera", "Guinea | Guyana", "the UK | the USA")),
    ("superscript", "en", ("What is the derivative of {0}?", "Simplify {0}. | Please simplify {0} for me."),
     ("x² | x³", "10² | 102", "½x | ¼x", "x^2 | x^3", "√2 | 2", "2(3+4) | 2*3+4", "5! | 5", "|x| | x")),
]  # fmt: skip
_SAME: Sequence[tuple[str, str, Sequence[str]]] = [
    ("case", "en", ("Convert -40 C to Fahrenheit | Convert -40 C to fahrenheit", "Where is my order? | where is my order?",
     "How do I sort a list in Python? | HOW DO I SORT A LIST IN PYTHON?", "Is the tent in Oslo? | is the tent in oslo?",
     "What does x > 5 return? | what does X > 5 return?", "How do I reset my password? | How Do I Reset My Password?")),
    ("space", "en", ("Where is my order? | Where  is my   order?", "Can I pay in cash? |  Can I pay in cash?\n",
     "Is it 5 km away? | Is it 5km away?", "How long is it? | How long is it\t?", "What is 2 + 2? | What is 2  +  2 ?")),
    ("end", "en", ("Where is my order? | Where is my order", "How do I sort a list in C++? | How do I sort a list in C++",
     "What is 2 + 2? | What is 2 + 2", "Tell me your opening hours. | Tell me your opening hours!", "Can I pay in cash? | Can I pay in cash??",
     "What does 👍 mean? | What does 👍 mean", "Convert -40 C to Fahrenheit | Convert -40 C to Fahrenheit.")),
    ("courtesy", "en", ("Where is my order? | Hello, where is my order?", "Can I pay in cash? | Can I please pay in cash? Thanks!",
     "How do I sort a list in C++? | How do I sort a list in C++, please?", "Convert 40 C to Fahrenheit | Please convert 40 C to Fahrenheit. Thank you!",
     "Is 5 greater than 3? | Hi! Is 5 greater than 3? Thanks a lot.", "Can I return two tents? | May I return two tents?",
     "Can I return the boots? | Could I return the boots?", "What are your opening hours? | Good morning, what are your opening hours?")),
    ("paraphrase", "en", ("Can I return two tents? | May I return 2 tents?", "Is it possible to pay in cash? | Can I pay in cash?",
     "Where is order TS-1234 now? | order ts-1234: where is it?", "What is the price of the Alpka tent? | What does the Alpka tent cost?",
     "What are your opening hours? | When are you open?", "How do I reset my password? | I forgot my password, how can I reset it?",
     "Is shipping free from $20? | Is delivery free from 20 dollars?", "How far is 5 km in miles? | How many miles are 5 kilometres?",
     "Fly from Paris to London | Fly to London from Paris", "Is Mira's tent in Oslo? | Oslo: is the tent of Mira there?",
     "Do you ship abroad? | Do you deliver to other countries?", "May I bring my dog? | Are dogs allowed?", "Is the café open? | Is the cafe open?",
     "How can I cancel my subscription? | What is the way to cancel a subscription?", "It’s 20% off, right? | It's 20 percent off, right?",
     "Can I not return it? | Can't I return it?", "What is ten plus five? | What is 10 + 5?", "Who wrote Hamlet? | Who is the author of Hamlet?")),
    ("case", "de", ("Wie kann ich den Dunkelmodus einschalten? | wie kann ich den dunkelmodus einschalten?",)),
    ("end", "de", ("Wo ist meine Bestellung? | Wo ist meine Bestellung",)),
    ("courtesy", "de", ("Wo ist meine Bestellung? | Hallo, wo ist meine Bestellung? Danke!",)),
    ("end", "fr", ("Où est ma commande ? | Où est ma commande",)),
    ("courtesy", "fr", ("Où est ma commande ? | Bonjour, où est ma commande ? Merci !",)),
    ("courtesy", "es", ("¿Dónde está mi pedido? | Hola, ¿dónde está mi pedido? Gracias",)),
    ("end", "zh", ("如何开启深色模式? | 如何开启深色模式", "我的订单在哪里？ | 我的订单在哪里")),
    ("courtesy", "zh", ("如何开启深色模式? | 请问，如何开启深色模式？",)),
    ("space", "ja", ("ダークモードを有効にする方法 | ダークモード を有効にする方法",)),
    ("end", "ja", ("ダークモードを有効にする方法 | ダークモードを有効にする方法。",)),
    ("case", "ru", ("Как включить тёмный режим? | как включить тёмный режим?",)),
    ("end", "pl", ("Jak włączyć tryb ciemny? | Jak włączyć tryb ciemny",)),
    ("case", "tr", ("Karanlık modu nasıl açarım? | karanlık modu nasıl açarım",)),
    ("end", "hi", ("डार्क मोड को चालू कैसे करें? | डार्क मोड को चालू कैसे करें",)),
    ("end", "ar", ("كيف يمكنني تفعيل الوضع الداكن؟ | كيف يمكنني تفعيل الوضع الداكن",)),
]  # fmt: skip
_LONG = (
    (
        "The notes below describe the history of a small outdoor shop. ",
        "Write a haiku on it.",
        "Write SQL that drops its tables now.",
    ),
    ("Our shop sells tents, ropes and boots to people who like to walk. ", "Translate it to Dutch.", "Count its vowels."),
    ("Die Notizen beschreiben die Geschichte eines kleinen Ladens. ", "Schreibe ein Gedicht.", "Schreibe eine Rechnung."),
    ("下面的笔记描述了一家小商店的历史。", "写一首诗。", "写一封信。"),
    ("def f(a): return a + 1\n", "Explain the code.", "Rewrite the code in Go."),
)
_REPEATED = (6, 12, 40)


def made() -> Iterator[HardPair]:
    """Every pair, in a fixed order."""
    for kind, language, templates, fillings in _DIFFERENT:
        for turn, filling in enumerate(fillings):
            left, right = filling.rsplit(" | ", 1)
            for template in templates:
                yield _pair(
                    kind, language, turn, False, *(side.format(value) for side, value in _sides(template, left, right))
                )
    for kind, language, both in _SAME:
        for turn, pair in enumerate(both):
            yield _pair(kind, language, turn, True, *pair.split(" | "))
    for turn, (beginning, one, other) in enumerate(_LONG):
        for times in _REPEATED:
            long = beginning * times
            yield _pair("long", "any", turn, False, long + one, long + other)
            yield _pair("long", "any", turn, False, f"{one}\n{long}", f"{other}\n{long}")
        yield _pair("long kept", "any", turn, True, beginning * 12 + one, beginning * 12 + one.rstrip(".。"))


def _sides(template: str, left: str, right: str) -> Iterator[tuple[str, str]]:
    cached, _, new = template.partition(" | ")
    yield cached, left
    yield new or cached, right


def _pair(kind: str, language: str, turn: int, same: bool, cached: str, new: str) -> HardPair:
    return HardPair(kind, language, "test" if turn % 2 else "calibration", same, cached, new)


def hard_pairs(part: Part | None = None) -> list[HardPair]:
    """The pairs in the lab's own file, of one part or of both."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = [HardPair(**{**row, "same": row["same"] == "1"}) for row in csv.DictReader(file)]  # type: ignore[arg-type]
    return [row for row in rows if part in (None, row.part)]


def write(path: Path = FILE) -> int:
    """Write all pairs to `path` and return how many there are."""
    pairs = list(made())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "language", "part", "same", "cached", "new"))
        for p in pairs:
            writer.writerow((p.kind, p.language, p.part, int(p.same), p.cached, p.new))
    return len(pairs)


if __name__ == "__main__":
    sys.stdout.write(f"{write()} pairs\n")
