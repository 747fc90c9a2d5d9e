"""The running case: a support portal, its features, and what travels through each of them.

Every chapter takes its workload and its month from here, so that their bills are of one portal and can be added up. The
token counts of the desk are those of the lab's own traffic (a test counts them again); the other numbers are the case's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from labkit.cost import Scenario
from labkit.request import InvalidValue

DAYS = 30
HOURS_A_MONTH = 24 * DAYS


@dataclass(frozen=True, slots=True)
class Desk:
    """Questions that a provider's API answers: name an intent, extract an order, apply a policy, look up a fact.

    `questions`: per user and day. Each call has `instructions` tokens that are the same in all, and `question` tokens that
    are its own; the large model writes `answer` visible tokens after `thinking` tokens. `retries`: extra attempts per
    question. `meanings`: how many different things people ask, in different words. `large` and `small`: list prices, as
    "provider/model"; what people do today is to send everything to the large one. `cache_terms`: the provider's terms for
    cached prefixes, by the name in `labkit.caches.provider.RULES`.
    """

    questions: int = 4
    instructions: int = 1_144
    question: int = 64
    answer: int = 13
    thinking: int = 26
    retries: float = 0.02
    meanings: int = 300
    large: str = "openai/gpt-5"
    small: str = "openai/gpt-5-mini"
    cache_terms: str = "openai, in memory"

    @property
    def input(self) -> int:
        """Input tokens of a call."""
        return self.instructions + self.question

    @property
    def output(self) -> int:
        """Output tokens of a call of the large model, thinking included."""
        return self.answer + self.thinking


@dataclass(frozen=True, slots=True)
class Assistant:
    """Long conversations on GPUs that the portal rents: one model of open weights, day and night.

    `sessions`: per user and day. Each is open for `open_minutes` and has `turns` answers of `answer` tokens; at its end it
    holds `history` tokens. `tokens_per_s`: what a reader is promised. `model` is a shape and `gpu` a machine of
    `labkit.latency`; `host` is the same machine's price, a key of `labkit.cost.hosts()`. `main_memory_bytes`: what a GPU's
    share of the host has (a p5.48xlarge: 2 TiB for 8, by Amazon's specification), and `link_gbs` the GB/s between the two
    (PCIe 5.0 ×16, by its specification).
    """

    sessions: int = 1
    turns: int = 6
    history: int = 8_000
    answer: int = 240
    open_minutes: float = 12
    tokens_per_s: float = 20
    model: str = "llama-3.1-8b"
    gpu: str = "h100"
    host: str = "h100"
    main_memory_bytes: float = 2 * 2**40 / 8
    link_gbs: float = 64


@dataclass(frozen=True, slots=True)
class Summaries:
    """Bulk work: each user's day is summarised for the team leads, from hour `ready` on, and is read at hour `due`.

    `a_day`: summaries per user and day, each of `prompt` and `answer` tokens. What people do today is to send them to the
    desk's large model as they fall due.
    """

    a_day: int = 1
    prompt: int = 1_200
    answer: int = 250
    ready: int = 18
    due: int = 8


@dataclass(frozen=True, slots=True)
class Portal:
    """The portal: `users` a day, growing by the share `growth` a month, and its three features.

    `hours` is the traffic by hour of the day, relative. `wrong_answer_usd`: what a wrong answer costs on average; one in
    twenty of those who get one calls a person, for 5 USD. Raises `InvalidValue` for values out of range.
    """

    users: int = 100_000
    growth: float = 0.05
    desk: Desk = field(default_factory=Desk)
    assistant: Assistant = field(default_factory=Assistant)
    summaries: Summaries = field(default_factory=Summaries)
    hours: tuple[int, ...] = (3, 2, 1, 1, 1, 2, 4, 8, 14, 18, 20, 20, 18, 18, 19, 18, 16, 14, 13, 12, 11, 9, 7, 5)
    wrong_answer_usd: Decimal = Decimal("0.25")

    def __post_init__(self) -> None:
        if self.users < 1:
            raise InvalidValue(f"users is {self.users}; a portal has 1 or more")
        if len(self.hours) != 24 or min(self.hours) < 0 or not sum(self.hours):
            raise InvalidValue(f"hours is {self.hours!r}; give 24 numbers from 0, not all of them 0")
        if self.wrong_answer_usd < 0:
            raise InvalidValue(f"wrong_answer_usd is {self.wrong_answer_usd}; give USD from 0")

    @property
    def questions(self) -> int:
        """The desk's questions in a month."""
        return self.users * self.desk.questions * DAYS

    @property
    def sessions(self) -> int:
        """The assistant's conversations in a month."""
        return self.users * self.assistant.sessions * DAYS

    @property
    def bulk(self) -> int:
        """Summaries in a month."""
        return self.users * self.summaries.a_day * DAYS

    @property
    def peak_share(self) -> float:
        """The share of a day's traffic that comes in its busiest hour."""
        return max(self.hours) / sum(self.hours)

    def scenario(self) -> Scenario:
        """The desk as settings of the calculator."""
        desk = self.desk
        return Scenario(
            users=self.users,
            requests_per_user=float(desk.questions),
            input_tokens=desk.input,
            output_tokens=desk.output,
            reasoning_share=desk.thinking / desk.output,
            retry_rate=desk.retries,
            peak_factor=24 * self.peak_share,
            days=DAYS,
            models=(desk.large, "anthropic/claude-sonnet-4-5", desk.small),
        )


PORTAL = Portal()
"""The portal of every chapter."""
