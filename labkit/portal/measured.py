"""From measured questions to the portal's desk: what it is billed for one, and what a router sends to each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labkit.caches import provider
from labkit.portal.changes import Sent
from labkit.portal.traffic import PORTAL, Desk
from labkit.request import InvalidValue, Usage


def at_the_desk(usage: Usage, desk: Desk = PORTAL.desk) -> Usage:
    """The usage of a bare question, with the desk's instructions before it.

    They are read from the provider's cache as far as its terms reach (`desk.cache_terms` counts hits in steps); the rest of
    them is fresh input. The output is the measured one.
    """
    return replace(
        usage,
        input_tokens=desk.instructions + usage.input_tokens,
        cached_tokens=provider.RULES[desk.cache_terms].cached(desk.instructions) + usage.cached_tokens,
    )


def sent(part: Sequence[Usage], average: Sequence[Usage]) -> Sent:
    """What a router sends to one model: `part` are that model's calls, `average` the large model's, one for each question.

    Both are as the desk is billed for them (`at_the_desk`), so that `Routed` makes of the average month what was measured:
    factors are means of `part` by means of `average`; where the large model has none of a kind, the factor is 0. Raises
    `InvalidValue` for an empty `average`.
    """
    if not average:
        raise InvalidValue("average holds no calls; give the large model's answers to all questions")
    if not part:
        return Sent(0.0)

    def factor(kind: str) -> float:
        usual = sum(usage.by_kind()[kind] for usage in average) / len(average)
        return sum(usage.by_kind()[kind] for usage in part) / len(part) / usual if usual else 0.0

    return Sent(len(part) / len(average), factor("visible_output"), factor("reasoning"), factor("fresh_input"))
