"""Every name that the exports use and that others chose, or rely on, with the version it comes from.

No other module of this room spells a metric, a label or an attribute. OpenTelemetry's names for generative AI are all in
development: they were moved out of the main conventions (1.42.0 deprecates them there) into a repository of their own that
has no release. So a renamed attribute is a change of one line here, and of the column in `labkit.ledger`.
"""

from __future__ import annotations

from typing import Final

SEMCONV: Final = "1.42.0-dev"
"""The version of OpenTelemetry's GenAI conventions (semantic-conventions-genai, stability: development)."""
SEMCONV_URL: Final = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
"""The schema URL that goes with spans and metrics, so that a receiver knows which names to expect."""
FOCUS_VERSION: Final = "1.3"
"""The version of the FinOps Open Cost and Usage Specification."""

# OpenTelemetry, GenAI conventions
TOKEN_USAGE: Final = "gen_ai.client.token.usage"
OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
TOKEN_TYPE: Final = "gen_ai.token.type"
TOKEN_BOUNDS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
DURATION_BOUNDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Buckets that the conventions advise, in tokens and in seconds."""

# OpenTelemetry, ours: the conventions have no name for money, for disjoint kinds of tokens, or for the attempt
COST: Final = "labkit.cost"
ATTEMPTS: Final = "labkit.attempts"
UNPRICED: Final = "labkit.attempts.unpriced"
TOKENS: Final = "labkit.tokens"
TOKEN_KIND: Final = "labkit.token.kind"
CURRENCY: Final = "labkit.currency"

# Prometheus. Counters carry the suffix _total in the exposition.
PROM_COST: Final = "labkit_cost_usd_total"
PROM_REQUESTS: Final = "labkit_requests_total"
PROM_ATTEMPTS: Final = "labkit_attempts_total"
PROM_TOKENS: Final = "labkit_tokens_total"
PROM_UNPRICED: Final = "labkit_unpriced_attempts_total"
PROM_OTHER_CURRENCY: Final = "labkit_other_currency_attempts_total"
PROM_SECONDS: Final = "labkit_attempt_seconds"
PROM_TTFT: Final = "labkit_ttft_seconds"
PROM_KEPT: Final = "labkit_ledger_attempts"
"""A gauge without labels: it is there when the ledger is empty, and falls only where another ledger took its place."""
LABELS: Final = ("tenant", "feature", "model", "outcome")
"""The labels of every metric but that gauge; `labkit_tokens_total` has `kind` as well."""
KIND_LABEL: Final = "kind"
