"""Places at which a text must not be cut: inside of what a reader sees as one character.

The rules of Unicode's UAX 29 (extended grapheme clusters) that a look at the neighbours can decide. Where they would have to
count further back (flags, joined emoji), every place in doubt counts as inside: a cut may be refused that was harmless, but
no character comes apart.
"""

from __future__ import annotations

from unicodedata import category

_EXTENDING = frozenset(
    map(chr, (0x200C, 0x200D, 0x0E33, 0x0EB3, 0xFF9E, 0xFF9F, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080)))
)
# Signs that belong to the character after them, such as the Arabic sign before a number.
_PREPENDED = frozenset(
    map(
        chr,
        (*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x0D4E, 0x110BD, 0x110CD, 0x111C2, 0x111C3,
         0x113D1, 0x1193F, 0x11941, 0x11A3A, *range(0x11A84, 0x11A8A), 0x11D46, 0x11F02),
    )
)  # fmt: skip
# Signs that join the consonant before them to the one after (viramas), and the joiner of emoji.
_JOINERS = frozenset(
    map(
        chr,
        (0x094D, 0x09CD, 0x0A4D, 0x0ACD, 0x0B4D, 0x0C4D, 0x0CCD, 0x0D4D, 0x1039, 0x17D2, 0x200D, 0x1A60, 0x1B44, 0x1BAB,
         0xA9C0, 0xAAF6, 0x10A3F, 0x11133, 0x113D0, 0x1193E, 0x11A47, 0x11A99, 0x11F42),
    )
)  # fmt: skip
_FAR = 8  # marks between a joiner and its consonant; no script writes so many
_FLAGS = range(0x1F1E6, 0x1F200)


def splits(text: str, at: int) -> bool:
    """Whether a cut before character `at` of `text` would take a visible character apart, or a pair of surrogates."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if after < "\x80" and before < "\x80":
        return before == "\r" and after == "\n"
    if before in "\r\n":
        return False
    return (
        _extends(after)
        or before in _PREPENDED
        or (_extends(before) and _joined(text, at))
        or (ord(before) in _FLAGS and ord(after) in _FLAGS)
        or (_is_jamo(after) and (_is_jamo(before) or "가" <= before <= "힣"))
        or (("\u1100" <= before <= "\u115f" or "\ua960" <= before <= "\ua97c") and "가" <= after <= "힣")
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
    )


def _extends(letter: str) -> bool:
    return letter in _EXTENDING or category(letter) in ("Mn", "Me", "Mc")


def _joined(text: str, at: int) -> bool:
    """Whether a joiner stands among the marks before `at`."""
    for back in range(at - 1, max(-1, at - 1 - _FAR), -1):
        if text[back] in _JOINERS:
            return True
        if not _extends(text[back]):
            return False
    return False


def _is_jamo(letter: str) -> bool:
    return "\u1100" <= letter <= "\u11ff" or "\ua960" <= letter <= "\ua97c" or "\ud7b0" <= letter <= "\ud7fb"
