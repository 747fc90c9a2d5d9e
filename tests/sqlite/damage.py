"""Files with one thing wrong in them."""

from __future__ import annotations

import random

PAGE = 4096


def damaged(whole: bytes, dice: random.Random, how: str) -> bytes:
    """`whole`, an SQLite file, with one "byte" of other content: anywhere, in its "header" or "schema"; or one "page"."""
    data = bytearray(whole)
    if how == "page":
        at = PAGE * dice.randrange(len(data) // PAGE)
        data[at : at + PAGE] = dice.choice((dice.randbytes(PAGE), bytes(PAGE)))
        return bytes(data)
    start, end = {"byte": (0, len(data)), "header": (16, 100), "schema": (100, 2 * PAGE)}[how]
    data[dice.randrange(start, end)] ^= dice.randrange(1, 256)
    return bytes(data)
