"""What failures cost: the tokens that are paid for, over the tokens that anybody can use.

A failed attempt is paid for what it read and wrote. Availability does not show that: a service that answers all its
requests may pay twice. The functions here are closed forms for two kinds of failure; `multiplier_of` reads the same out
of a ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Literal

from labkit.cost import MTOK, Rates
from labkit.ledger import Ledger, tokens, waste
from labkit.request import TOKEN_KINDS, InvalidValue, is_whole

Again = Literal["same", "redrawn", "resumed"]
"""What a further attempt writes: the same answer, another one of the same distribution, or the rest of the answer."""


@dataclass(frozen=True, slots=True)
class PaidAndUseful:
    """Tokens of a request, on average: those paid for, and those of answers that arrived whole.

    `answered` is the share of requests that got a whole answer, `attempts` the mean number of attempts.
    """

    paid_input: float
    paid_output: float
    useful_input: float
    useful_output: float
    answered: float
    attempts: float

    @property
    def multiplier(self) -> float:
        """Tokens paid over tokens useful: 1 where nothing fails, infinite where nothing arrives."""
        return _over(self.paid_input + self.paid_output, self.useful_input + self.useful_output)

    @property
    def output_multiplier(self) -> float:
        """The same for output tokens alone."""
        return _over(self.paid_output, self.useful_output)

    def in_money(self, rates: Rates) -> float:
        """The same in money, by the price of a fresh input token and of an output token."""
        fresh, output = (float(rates.of(kind)) for kind in ("fresh_input", "visible_output"))
        return _over(
            self.paid_input * fresh + self.paid_output * output, self.useful_input * fresh + self.useful_output * output
        )

    def per_answer(self, rates: Rates) -> Decimal:
        """What an answer that arrived cost on average, failures included, in the currency of `rates`; infinite if none."""
        if not self.answered:
            return Decimal("Infinity")
        paid = Decimal(self.paid_input) * rates.of("fresh_input") + Decimal(self.paid_output) * rates.of("visible_output")
        return paid / MTOK / Decimal(self.answered)


def with_failures(
    prompt: float, output: float, failing: float, written: float, attempts: int, *, resumed: bool = False
) -> PaidAndUseful:
    """Independent failures: each attempt fails with probability `failing`, when a share `written` of its output is written.

    Up to `attempts` attempts are made; `prompt` and `output` are the tokens of an attempt that succeeds. The number of
    attempts is geometric, cut at n = `attempts`. An answer that arrives has seen q/(1 − q) failures on average, and n drops
    out:

        paid / useful = 1 + q / (1 − q) · (prompt + written · output) / (prompt + output)

    (The failures of requests that fail n times are paid as well; they are just as many more as the useful tokens are
    fewer.) So one time-out, always followed by a success, costs 1 + `written` times the output: nearly double where it
    comes late. If the share varies, `written` is its mean.

    With `resumed`, an attempt goes on from what has been written, and `written` is a share of what was left to write.
    Attempt j + 1 then reads prompt + (1 − (1 − w)ʲ) · output tokens, and writes the rest, (1 − w)ʲ · output, or a share w
    of it. No output token is written twice; the price is reading them. It pays where (1 − q + q·w) output tokens are dearer
    than one input token: with output at five times the price of input, up to a q of 0.8. Raises `InvalidValue` for numbers
    out of range.
    """
    _check_shares(failing=failing, written=written)
    _check_attempts(attempts)
    if not (prompt >= 0 and output > 0):
        raise InvalidValue(
            f"the prompt has {prompt!r:.40} tokens and the output {output!r:.40}; use numbers from 0, and above 0"
        )
    left = 1 - written if resumed else 1.0
    read = wrote = made = 0.0
    for before in range(attempts):
        reached = failing**before
        rest = left**before * output
        made += reached
        read += reached * (prompt + (output - rest if resumed else 0.0))
        wrote += reached * rest * (1 - failing + failing * written)
    answered = 1 - failing**attempts
    return PaidAndUseful(read, wrote, answered * prompt, answered * output, answered, made)


def with_timeouts(prompt: float, lengths: Sequence[int], fits: int, attempts: int, again: Again = "same") -> PaidAndUseful:
    """Time-outs: an attempt that has more than `fits` tokens to write is cut after `fits` of them, and all of it is paid.

    `lengths` are the answers' lengths in tokens, each equally likely (an empirical distribution). `again` says what the
    next of up to `attempts` attempts writes:

    - "same" (greedy decoding): the same answer, which does not fit again. Each further attempt is paid for nothing.
    - "redrawn" (a temperature, and no memory of the length): another answer, which may fit. This is `with_failures`, with
      q = P(length > fits); the useful answers are the short ones.
    - "resumed": the rest of the answer. It needs ⌈length / fits⌉ attempts, and each reads what was written before.

    Raises `InvalidValue` for numbers out of range.
    """
    _check_attempts(attempts)
    if not lengths or not all(is_whole(length, 1) for length in lengths) or not is_whole(fits, 1) or not prompt >= 0:
        raise InvalidValue("give lengths of at least 1 token, a prompt from 0, and a time-out that at least 1 token fits in")
    if again not in ("same", "redrawn", "resumed"):
        raise InvalidValue(f'again is {again!r:.40}; use "same", "redrawn" or "resumed"')
    count = len(lengths)
    if again == "redrawn":
        short = [length for length in lengths if length <= fits]
        q = 1 - len(short) / count
        answered = 1 - q**attempts
        made = sum(q**before for before in range(attempts))
        useful = answered * (sum(short) / len(short) if short else 0.0)
        return PaidAndUseful(
            made * prompt, useful + (made - answered) * fits, answered * prompt, useful, answered, made
        )  # fmt: skip
    read = wrote = useful_read = useful_wrote = made = answered = 0.0
    for length in lengths:
        needed = 1 if length <= fits else ceil(length / fits) if again == "resumed" else attempts + 1
        tried = min(needed, attempts)
        whole = needed <= attempts
        made += tried
        read += tried * prompt + (fits * tried * (tried - 1) / 2 if again == "resumed" else 0)
        wrote += length if whole else tried * fits
        if whole:
            answered, useful_read, useful_wrote = answered + 1, useful_read + prompt, useful_wrote + length
    return PaidAndUseful(*(total / count for total in (read, wrote, useful_read, useful_wrote, answered, made)))


def multiplier_of(ledger: Ledger) -> float:
    """Tokens paid over tokens useful, by a ledger: all its tokens, over those that are not in `labkit.ledger.waste`.

    Attempts that failed count as waste there, so an answer that was resumed looks dearer here than it was: its first part
    did serve. Attempts whose input nobody knows count with their output only. Infinite where nothing served. Raises
    `LedgerError` if the ledger cannot be read.
    """
    paid = float(tokens(ledger).sum())
    lost = waste(ledger)
    kinds = list(TOKEN_KINDS)
    return _over(paid, paid - float(lost[kinds].to_numpy().sum()))


def _over(paid: float, useful: float) -> float:
    return paid / useful if useful else float("inf")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InvalidValue(f"{name} is {share!r:.40}; it lies from 0 to 1")


def _check_attempts(attempts: object) -> None:
    if not is_whole(attempts, 1):
        raise InvalidValue(f"attempts is {attempts!r:.40}; use a whole number from 1")
