import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import (
    Chooser,
    Chunk,
    Completion,
    Done,
    InvalidRequest,
    InvalidValue,
    LabError,
    Message,
    Request,
    StreamIncomplete,
    Timing,
    TokenLogprob,
    Usage,
    asked,
    canonical,
    chunk_from_json,
    chunk_to_json,
    clock,
    complete,
    done_from_json,
    done_to_json,
    stack,
)
from request.stacks import ScriptedEngine, Shouting

counts = st.integers(0, 10**9)
parts = st.tuples(counts, counts, counts, counts, counts)


def usage_of(fresh, cached, written, visible, reasoning):
    return Usage(fresh + cached + written, visible + reasoning, cached, written, reasoning)


@given(parts)
def test_subtraction_gives_back_the_disjoint_parts_a_usage_was_made_of(p):
    usage = usage_of(*p)
    split = (
        usage.fresh_input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.visible_output_tokens,
        usage.reasoning_tokens,
    )  # fmt: skip
    assert split == p
    assert sum(split) == usage.input_tokens + usage.output_tokens


@given(parts, parts)
def test_the_split_of_a_sum_is_the_sum_of_the_splits(p, q):
    total = usage_of(*p) + usage_of(*q)
    assert total == usage_of(*(a + b for a, b in zip(p, q, strict=True)))


@given(st.tuples(*[st.integers(-3, 10)] * 5))
def test_a_usage_is_accepted_exactly_when_its_parts_fit(values):
    total_in, out, cached, written, reasoning = values
    fits = min(values) >= 0 and cached + written <= total_in and reasoning <= out
    if fits:
        assert Usage(*values).input_tokens == total_in
    else:
        with pytest.raises(InvalidValue):
            Usage(*values)


@pytest.mark.parametrize("bad", [1.0, True, "3", None, float("nan")])
def test_a_token_count_that_is_no_whole_number_is_refused_by_name(bad):
    with pytest.raises(InvalidValue, match="output_tokens"):
        Usage(1, bad)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": ()}, "at least one message"),
        ({"messages": ("hi",)}, "Message values"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": -5}, "max_tokens is -5"),
        ({"temperature": 2.1}, "temperature is 2.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0}, "top_p is 0"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"attempt": 0}, "attempt is 0"),
        ({"deadline": float("inf")}, "deadline is inf"),
    ],
)
def test_a_request_that_could_never_be_served_is_refused_with_its_value(fields, message):
    with pytest.raises(InvalidRequest, match=message):
        Request(**{"messages": "hi"} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"extra": {1: "a", "b": 2}},
        {"extra": {None: "a", "b": 2}},
        {"extra": {"a": object()}},
        {"extra": {"a": float("nan")}},
        {"response_format": {"a": {1, 2}}},
        {"response_format": {(1, 2): "a"}},
    ],
)
def test_a_question_that_is_no_json_has_no_identity_and_says_so(fields):
    with pytest.raises(InvalidRequest, match="extra and response_format must be JSON"):
        canonical(asked(Request("hi", **fields)))


@pytest.mark.parametrize("odd", [True, False, 0, -1, 1.5, "3", None, float("nan")])
def test_a_chunk_with_an_odd_count_counts_nothing(odd):
    assert Chunk("x", 0.0, tokens=odd).counted == Usage()
    assert Chunk("", 0.0, tokens=odd, reasoning="x").counted == Usage()


WRITTEN_CHUNK = {"at": 1, "text": "x", "tokens": 1, "logprobs": [["x", -0.5, [["x", -0.5], ["y", -1]]]]}
WRITTEN_DONE = {
    "usage": {"input_tokens": 4}, "times": [1, None, 2.5], "finish_reason": "stop", "model": "m", "response_id": "r",
    "started_unix": 1000,
}  # fmt: skip


def test_events_are_read_back_from_json():
    chunk, done = chunk_from_json(WRITTEN_CHUNK), done_from_json(WRITTEN_DONE)
    assert chunk == Chunk("x", 1.0, logprobs=(TokenLogprob("x", -0.5, (("x", -0.5), ("y", -1.0))),))
    assert done == Done(Usage(4), Timing(0.0, 1.0, None, 2.5, 1000.0), model="m", response_id="r")
    assert chunk_from_json(chunk_to_json(chunk)) == chunk
    assert done_from_json(done_to_json(done)) == done


@pytest.mark.parametrize(
    ("read", "written", "damage"),
    [
        (chunk_from_json, WRITTEN_CHUNK, {"logprobs": damaged})
        for damaged in ([[7, -0.5, []]], [["x", "y", []]], [["x", None, []]], [["x", True, []]], [["x", -0.5, ["xy"]]],
                        [["x", -0.5, [["y", "z"]]]], [["x", -0.5, [[None, -1]]]], [["x", 10**400, []]], ["xyz"], 3)
    ] + [(done_from_json, WRITTEN_DONE, {"started_unix": damaged}) for damaged in ("now", True, [], {}, 10**400)],
)  # fmt: skip
def test_damaged_events_are_not_read(read, written, damage):
    with pytest.raises(StreamIncomplete, match="it was damaged"):
        read(written | damage)


def test_an_unknown_role_is_refused_with_the_known_ones():
    with pytest.raises(InvalidRequest, match="system, user, assistant, tool"):
        Message("robot", "hi")


def test_a_lone_string_is_one_user_message_and_a_lone_stop_is_one_stop():
    request = Request("hello", stop="END")
    assert request.messages == (Message("user", "hello"),)
    assert request.stop == ("END",)


def test_every_value_is_frozen():
    for value in (Message("user", "x"), Request("x"), Usage(), Timing(0.0), Chunk("x", 0.0), Done(Usage(), Timing(0.0))):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, None)


def test_timings_derive_latencies_and_none_where_undefined():
    whole = Timing(sent=10.0, first_token=10.5, last_token=12.4, done=12.5)
    assert (whole.ttft, whole.e2e) == (0.5, 2.5)
    assert whole.tpot(5) == pytest.approx((2.5 - 0.5) / 4)
    assert whole.tpot(1) is None
    assert whole.tpot(0) is None
    assert Timing(10.0).ttft is None
    assert Timing(10.0).e2e is None
    assert Timing(10.0, done=11.0).tpot(5) is None


def test_complete_folds_a_stream_and_measures_gaps_between_chunks():
    completion = clock.run_virtual(complete(ScriptedEngine(gap=0.5), Request("hi")))
    assert isinstance(completion, Completion)
    assert completion.text == "abcd"
    assert completion.inter_chunk_latencies == (0.5, 0.5, 0.5)
    assert completion.done.timing.ttft == 0.5
    assert completion.tpot == pytest.approx(0.5)


def test_stack_puts_the_first_lever_outermost():
    handler = stack(Shouting("outer"), Shouting("inner"), Shouting(), engine=ScriptedEngine())
    assert clock.run_virtual(complete(handler, Request("hi"))).done.route == ("outer", "inner", "shouting")


def test_a_stack_prints_itself_and_compares_by_its_settings():
    engine = ScriptedEngine()
    one = stack(Shouting("a"), Shouting("b"), engine=engine)
    assert str(one).splitlines() == ["Shouting(name='a')", "Shouting(name='b')", repr(engine)]
    assert one == Shouting("a")(Shouting("b")(engine))
    assert one != stack(Shouting("b"), Shouting("a"), engine=engine)
    assert hash(one) == hash(stack(Shouting("a"), Shouting("b"), engine=engine))


def test_a_stack_of_choosers_prints_each_model_below_its_name():
    engine = ScriptedEngine()
    handler = stack(Shouting("a"), First(), engine={"x": Shouting("b")(engine), "y": engine})
    told = str(handler).splitlines()
    assert told[:3] == ["Shouting(name='a')", "First()", "  x:"]
    assert told[3:] == ["    Shouting(name='b')", f"    {engine!r}", "  y:", f"    {engine!r}"]


@pytest.mark.parametrize(
    ("levers", "engine", "message"),
    [
        ((3,), ScriptedEngine(), "3 is none"),
        ((Shouting,), ScriptedEngine(), "make a value of it first"),
        ((lambda inner: inner,), ScriptedEngine(), "is none"),
        ((Shouting(),), 5, "5 is none"),
        ((Shouting(),), Shouting(), "is none"),
        ((Shouting(),), {"x": ScriptedEngine()}, "takes one handler and was given 1 models"),
        ((), {"x": ScriptedEngine()}, "end the stack with a chooser"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_what_to_do(levers, engine, message):
    with pytest.raises(InvalidValue, match=message):
        stack(*levers, engine=engine)


def test_a_chooser_comes_last_and_wants_models():
    with pytest.raises(InvalidValue, match="so it comes last"):
        stack(First(), Shouting(), engine=ScriptedEngine())
    with pytest.raises(InvalidValue, match="chooses among models"):
        stack(First(), engine=ScriptedEngine())


@dataclasses.dataclass(frozen=True)
class First(Chooser):
    def over(self, models):
        return next(iter(models.values()))


def test_labs_errors_can_be_told_from_bugs_and_caught_as_builtins():
    assert issubclass(InvalidRequest, LabError)
    assert issubclass(InvalidRequest, ValueError)
