"""Under which names logs keep what they tell, in snake case, the likeliest first.

`GROUPS` has the names of each thing that is looked for; a record is asked for them place by place (`places.Places`).
"""

from __future__ import annotations

from collections.abc import Mapping

AT = (
    "timestamp", "start_time", "started_at", "created_at", "request_time", "started_unix", "labkit_started_unix", "time",
    "ts", "date", "datetime", "created", "request_created_at",
)  # fmt: skip
END = ("end_time", "response_created_at", "completed_at", "ended_at", "finished_at", "end_timestamp")
FIRST = ("completion_start_time", "first_token_at", "first_token_time", "first_token_timestamp")
DURATION = (
    "duration", "request_duration", "latency", "elapsed_time", "elapsed", "response_time", "total_time", "e2e", "labkit_e2e",
    "total_latency", "delay",
)  # fmt: skip
TTFT = ("ttft", "time_to_first_token", "first_token_latency", "labkit_ttft")
MODEL = (
    "model", "response_model", "gen_ai_response_model", "gen_ai_request_model", "provided_model_name", "request_model",
    "model_id", "model_name", "deployment",
)  # fmt: skip
ATTEMPT = ("attempt", "attempt_number", "labkit_attempt")
REQUEST = ("idempotency_key", "labkit_idempotency_key", "custom_id", "request_group", "trace_id")
ID = ("request_id", "id", "response_id", "labkit_attempt_id", "call_id", "observation_id")
COST = ("cost", "spend", "total_cost", "calculated_total_cost", "response_cost", "cost_usd", "labkit_cost")
CURRENCY = ("currency", "cost_currency", "spend_currency", "labkit_currency")
TENANT = (
    "tenant", "tenant_id", "labkit_tenant", "team_id", "organization", "organization_id", "org_id", "project_id",
    "api_key_id",
)  # fmt: skip
USER = ("end_user", "user", "user_id", "request_user_id", "labkit_user", "enduser_id", "customer_id")
SESSION = ("session_id", "session", "conversation_id", "gen_ai_conversation_id", "thread_id", "chat_id", "labkit_workflow")
FEATURE = ("feature", "labkit_feature", "prompt_name", "call_type", "operation", "log_type", "name", "task")
FINISH = ("finish_reason", "stop_reason", "finish_reasons", "gen_ai_response_finish_reasons")
PROMPT_KEY = ("prompt_hash", "prompt_key", "cache_key", "messages_hash")
PROMPT_VERSION = (
    "prompt_version", "labkit_prompt_version", "prompt_template_version", "prompt_version_id", "prompt_revision",
)  # fmt: skip
SHADOW = ("shadow", "labkit_shadow")
USAGE = ("usage", "usage_details", "usage_object", "token_usage", "usage_metadata")
IN = ("prompt_tokens", "input_tokens", "request_tokens", "context_tokens", "gen_ai_usage_input_tokens", "num_prompt_tokens")
OUT = (
    "completion_tokens", "output_tokens", "response_tokens", "generated_tokens", "gen_ai_usage_output_tokens",
    "num_completion_tokens",
)  # fmt: skip
MORE = {
    "total_tokens": "total_tokens",
    "prompt_cache_read_tokens": "cache_read_input_tokens",
    "prompt_cache_write_tokens": "cache_creation_input_tokens",
    "cached_tokens": "prompt_tokens_details.cached_tokens",
    "cached_input_tokens": "prompt_tokens_details.cached_tokens",
    "gen_ai_usage_cache_read_input_tokens": "prompt_tokens_details.cached_tokens",
    "cache_write_tokens": "prompt_tokens_details.cache_write_tokens",
    "gen_ai_usage_cache_creation_input_tokens": "prompt_tokens_details.cache_write_tokens",
    "reasoning_tokens": "completion_tokens_details.reasoning_tokens",
    "gen_ai_usage_reasoning_output_tokens": "completion_tokens_details.reasoning_tokens",
    "cache_read_input_tokens": "cache_read_input_tokens",
    "cache_creation_input_tokens": "cache_creation_input_tokens",
}
WANTED = (
    f"token counts (usage, {', '.join(IN[:3])}, …), messages (messages, input, prompt), or a time "
    f"({', '.join(AT[:4])}, …) with a model, an id or a status"
)
"""The fields without which a record is no call, for an error's text."""

REQUEST_BODIES = ("request", "request_body", "body", "proxy_server_request", "kwargs")
RESPONSE_BODIES = ("response", "response_body", "result", "completion")
BESIDE = ("metadata", "attributes", "span_attributes", "properties")

_STATUS = ("outcome", "labkit_outcome", "status", "status_code", "http_status", "response_status", "level", "error")
_PROMPT = ("messages", "input", "prompt", "system_prompt", "gen_ai_input_messages")
_ANSWER = ("answer", "output", "output_text", "completion")
UNITS: Mapping[str, float] = {"_ms": 1e-3, "_millis": 1e-3, "_s": 1.0, "_seconds": 1.0, "_sec": 1.0, "": 0.0}
"""Seconds in the unit that ends a field's name; 0 where the name tells none."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "at": AT, "end": END, "first": FIRST, "model": MODEL, "attempt": ATTEMPT, "request": REQUEST, "id": ID, "cost": COST,
    "currency": CURRENCY, "tenant": TENANT, "user": USER, "session": SESSION, "feature": FEATURE, "finish": FINISH,
    "prompt_key": PROMPT_KEY, "prompt_version": PROMPT_VERSION,
    "shadow": SHADOW, "usage": USAGE, "counts": (*IN, *OUT), "status": _STATUS,
    "prompt": _PROMPT, "prompts": ("instructions", *_PROMPT), "answer": _ANSWER, "answers": ("choices", *_ANSWER),
    "choices": ("choices",), "duration": tuple(name + unit for name in DURATION for unit in UNITS),
    "ttft": tuple(name + unit for name in TTFT for unit in UNITS),
    "bodies": (*RESPONSE_BODIES, *REQUEST_BODIES, *BESIDE),
    "about": (*MODEL, *ID, *PROMPT_KEY, *FINISH, "status", "status_code"),
}  # fmt: skip
"""What is looked for, and under which names."""
