"""What a reader sees, and when.

A stream's worth is in its readers' time: when there is something to act on (`first_useful_at`, `PartialJSON`,
`AfterProse`), how long reading takes streamed or buffered (`streamed`, `buffered`), when enough was said to stop paying
(`stop_when`), and how the text gets to a screen over lines that are slow (`paced`) or break (`Decoder`, `encode`,
`Resumable`).
"""

from labkit.streaming.after_prose import AfterProse, progressive
from labkit.streaming.cancel import (
    Condition,
    any_of,
    enough_words,
    gone,
    json_complete,
    repeating,
    said,
    stop_when,
    tokens_saved,
)
from labkit.streaming.paced import paced
from labkit.streaming.partial_json import Final, Malformed, PartialJSON
from labkit.streaming.perceived import WORDS_PER_S, Reading, buffered, streamed, token_arrivals, word_arrivals
from labkit.streaming.resume import Resumable, StreamGone
from labkit.streaming.sse import KEEP_ALIVE, MEDIA_TYPE, Decoder, Message, encode, frame, to_event
from labkit.streaming.useful import FirstUseful, JsonFields, Kind, first_useful_at

__all__ = [
    "KEEP_ALIVE",
    "MEDIA_TYPE",
    "WORDS_PER_S",
    "AfterProse",
    "Condition",
    "Decoder",
    "Final",
    "FirstUseful",
    "JsonFields",
    "Kind",
    "Malformed",
    "Message",
    "PartialJSON",
    "Reading",
    "Resumable",
    "StreamGone",
    "any_of",
    "buffered",
    "encode",
    "enough_words",
    "first_useful_at",
    "frame",
    "gone",
    "json_complete",
    "paced",
    "progressive",
    "repeating",
    "said",
    "stop_when",
    "streamed",
    "to_event",
    "token_arrivals",
    "tokens_saved",
    "word_arrivals",
]
