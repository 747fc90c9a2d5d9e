"""The cheapest mix that reaches a length, against a brute force over all orders of all mixes."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines import ScriptedEngine
from labkit.request import InvalidRequest, InvalidValue, Message, Request, complete, run_virtual, stack
from labkit.shrink import FACTS, NOTHING, Budget, Cut, InstructionMissing, Option, OverBudget, Protect, Shrinker, Shrunk


@dataclass(frozen=True)
class Drops(Shrinker):
    """Removes what `pattern` matches; a lossless one says that it can be restored."""

    pattern: str
    lossless: bool = False
    protect: Protect = NOTHING

    async def shrink(self, request: Request) -> Shrunk:
        self.protect.check(request.messages)
        cuts = [
            Cut(i, m.start(), m.end(), by="drops", why=f"matches {self.pattern}", lossless=self.lossless)
            for i, message in enumerate(request.messages)
            for m in re.finditer(self.pattern, message.content)
        ]
        return Shrunk.of(request.messages, cuts)


@dataclass(frozen=True)
class Refuses(Shrinker):
    async def shrink(self, request: Request) -> Shrunk:
        raise InvalidRequest("too many of these")


def prompt(text: str) -> Request:
    return Request((Message("user", text),))


PATTERNS = ("a", "b+", "ab", "ba", "cc", "(?<=a)b", "^.", ".$")
options = st.lists(
    st.tuples(st.sampled_from(PATTERNS), st.sampled_from((0.0, 0.01, 0.02, 0.05))), min_size=1, max_size=4, unique=True
).map(lambda given: tuple(Option(Drops(p), loss, name=p, kind=p) for p, loss in given))


@given(st.text("abc", min_size=1, max_size=14), options, st.integers(1, 14))
def test_it_is_the_best_of_all_orders_of_all_mixes(text, given_options, tokens):
    budget = Budget(tokens, given_options, len)

    def result(order) -> str:
        made = text
        for number in order:
            made = re.sub(given_options[number].shrinker.pattern, "", made)
        return made

    kinds = [option.kind for option in given_options]
    orders = [
        order
        for size in range(len(given_options) + 1)
        for order in itertools.permutations(range(len(given_options)), size)
        if len({kinds[n] for n in order}) == size
    ]
    fits = [
        (round(sum(given_options[n].loss for n in order), 9), len(result(order)))
        for order in orders
        if len(result(order)) <= tokens
    ]
    if len(text) <= tokens:
        mix = asyncio.run(budget.mix(prompt(text)))
        assert (mix.used, mix.shrunk.after[0].content) == ((), text)
    elif fits:
        mix = asyncio.run(budget.mix(prompt(text)))
        assert (round(mix.loss, 9), mix.tokens) == min(fits)
        assert mix.shrunk.after[0].content == result([given_options.index(option) for option in mix.used])
        assert len(mix.used) + len(mix.unused) == len(given_options)
    else:
        with pytest.raises(OverBudget) as refused:
            asyncio.run(budget.mix(prompt(text)))
        assert refused.value.needed == min(len(result(order)) for order in orders)


def test_lossless_options_come_first_and_a_stronger_one_of_a_kind_takes_its_place():
    tabs = Option(Drops("\t+", lossless=True), 0.0, "tabs", "tabs")
    weak, strong = Option(Drops("very"), 0.01, "weak"), Option(Drops("very|quite"), 0.03, "strong")
    mix = asyncio.run(Budget(28, (strong, weak, tabs), len).mix(prompt("a very\t\t long\t and quite dull text")))
    assert [option.name for option in mix.used] == ["tabs", "weak"]
    assert mix.loss == 0.01
    told = mix.explain()
    assert "27 tokens by tabs (loss 0), then weak (loss 0.01): at most 0.01" in told
    assert "[drops] 'very'" in told
    assert "not used: strong (loss 0.03): weak is used in its place" in told


def test_what_was_not_used_says_why():
    options = (Option(Drops("x"), 0.1, "a", "a"), Option(Drops("zz"), 0.0, "b", "b"), Option(Refuses(), 0.0, "c"))
    mix = asyncio.run(Budget(3, (*options, Option(Drops("y"), 0.2, "d", "d")), len).mix(prompt("xxyyq")))
    assert {option.name: why for option, why in mix.unused} == {
        "b": "it removes nothing here",
        "c": "it refused this prompt: too many of these",
        "d": "the budget is met without it",
    }


def test_a_budget_below_the_protected_part_says_how_many_tokens_are_needed():
    budget = Budget(4, (Option(Drops("[a-z ]+", protect=FACTS), 0.1),), len)
    with pytest.raises(OverBudget, match="to 5 at least, of which 5 are protected; give it 5 or more") as refused:
        run_virtual(complete(stack(budget, engine=ScriptedEngine("yes")), prompt("pay 12345 now")))
    assert (refused.value.needed, refused.value.protected) == (5, 5)


def test_an_instruction_that_is_missing_reaches_the_caller():
    kept = Drops("a", protect=Protect(instructions=("Be kind.",)))
    with pytest.raises(InstructionMissing, match="Be kind"):
        asyncio.run(Budget(1, (Option(kept, 0.1),), len).shrink(prompt("aaa")))


def test_a_bare_shrinker_that_loses_text_must_say_what_that_costs():
    with pytest.raises(InvalidValue, match="cannot be restored"):
        asyncio.run(Budget(1, (Drops("a"),), len).shrink(prompt("aab")))
    answer = run_virtual(complete(stack(Budget(1, (Drops("a"),), len), engine=ScriptedEngine("yes")), prompt("aab")))
    assert "cannot be restored" in str(answer.done.faults[0])


many: Callable[[int], tuple[Option, ...]] = lambda n: tuple(Option(Drops(str(i)), 0.1, kind=str(i)) for i in range(n))  # noqa: E731


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Budget(0, many(1)), "0 tokens"),
        (lambda: Budget(5, ()), "without shrinkers"),
        (lambda: Budget(5, many(7)), "13700 orders"),
        (lambda: Option(Drops("a"), 2), "loss is 2"),
        (lambda: Option("a", 0.1), "no shrinker"),
    ],
)
def test_what_cannot_be_meant_is_named(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()
    assert len(Budget(5, many(6)).shrinkers) == 6
