"""The short way to read token counts gives what the long one gives, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.engines import usage_of
from labkit.logs.counts import quick_usage
from labkit.request import Usage

NUMBER = st.one_of(st.integers(-2, 40), st.sampled_from([10**12, 10**12 + 1, None, True, 3.0, "7", "many"]))
INS = ("cached_tokens", "cache_write_tokens", "audio_tokens", "text_tokens")
OUTS = ("reasoning_tokens", "audio_tokens", "accepted_prediction_tokens")
PLAIN = (
    "prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens",
    "cache_creation_input_tokens", "citation_tokens",
)  # fmt: skip
REPORT = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(PLAIN, NUMBER),
        **dict.fromkeys(("prompt_tokens_details", "input_tokens_details"), st.dictionaries(st.sampled_from(INS), NUMBER)),
        **dict.fromkeys(
            ("completion_tokens_details", "output_tokens_details"), st.dictionaries(st.sampled_from(OUTS), NUMBER)
        ),
    },
)
WHOLE = st.builds(
    lambda into, out, cached, written, thought, words: {
        words[0]: into + (0 if words[2] else cached + written),
        words[1]: out + thought,
        **(
            {"cache_read_input_tokens": cached, "cache_creation_input_tokens": written}
            if words[2]
            else {f"{words[0]}_details": {"cached_tokens": cached, "cache_write_tokens": written}}
        ),
        f"{words[1]}_details": {"reasoning_tokens": thought},
    },
    *[st.integers(0, 1000)] * 5,
    st.sampled_from(
        [
            ("prompt_tokens", "completion_tokens", False),
            ("input_tokens", "output_tokens", False),
            ("input_tokens", "completion_tokens", True),
        ]
    ),
)


@settings(deadline=None, max_examples=500)
@given(st.one_of(REPORT, WHOLE))
def test_the_short_way_never_differs_from_the_long_one(report: dict[str, Any]) -> None:
    quick = quick_usage(report)
    usage, note = usage_of(report)
    assert quick in (None, usage), (quick, usage)
    assert quick is None or "contradicts itself" not in note


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}, Usage(9, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}, Usage(9, 4, 5)),
        ({"input_tokens": 9, "output_tokens": 4, "cache_read_input_tokens": 5}, Usage(14, 4, 5)),
        ({"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 5}}, Usage(9, 4, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 14}, None),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 10}}, None),
        ({"prompt_tokens": 0, "completion_tokens": 4}, None),
    ],
)
def test_what_goes_the_short_way(report: dict[str, Any], usage: Usage | None) -> None:
    assert quick_usage(report) == usage
