"""Random conversations in many scripts, with calls of tools whose results come where clients put them."""

from __future__ import annotations

import random

from labkit.request import Message, ToolCall

SAID = (
    "hello there",
    "Where is my order TS-12345?",
    "it broke after 3 days",
    "please do not send it to Cronville",
    "danke schön",
    "ich möchte das nicht",
    "你好，我的订单在哪里？",
    "请不要退款100元",
    "مرحبا، أين طلبي؟",
    "لا أريد 5 قطع",
    "नमस्ते, मेरा ऑर्डर",
    "שלום עולם",
    "👍🏽 ok",
    "",
    "pay 40 euros <keep>never refund</keep>",
    "a" * 300,
    "yes",
)


def talk(rng: random.Random, most: int = 12) -> tuple[Message, ...]:
    """A conversation that begins with a system message or none, and ends with a question or with results of tools."""
    messages = [Message("system", rng.choice(SAID)) for _ in range(rng.choice((0, 1, 1, 2)))]
    number = 0
    for _ in range(rng.randrange(1, most)):
        messages.append(Message("user", rng.choice(SAID)))
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            calls = tuple(ToolCall(f"c{number + i}", "look", f'{{"id": {i}}}') for i in range(rng.choice((1, 2))))
            number += len(calls)
            messages.append(Message("assistant", rng.choice(("", "one moment")), calls))
            messages += [Message("tool", rng.choice(SAID), tool_call_id=call.id) for call in rng.sample(calls, len(calls))]
        if rng.random() < 0.05:
            messages.append(Message("system", rng.choice(SAID)))
        messages.append(Message("assistant", rng.choice(SAID)))
    if rng.random() < 0.8:
        messages.append(Message("user", rng.choice(SAID)))
    return tuple(messages)


def words(text: str) -> int:
    """A count of tokens that anyone can check: letters, by fours."""
    return -(-len(text) // 4)
