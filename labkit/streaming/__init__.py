"""What a reader sees, and when.

Streaming is worth the time that it saves readers. This room tells when there is something to act on (`first_useful_at`,
`PartialJSON`, `AfterProse`) and how long reading takes when streamed or buffered (`streamed`, `buffered`). It stops answers
that have said enough, so that no more is paid (`StopWhen`). It sends the text to a screen over connections that are slow
(`Paced`) or break (`Decoder`, `encode`, `Resumable`).
"""

from labkit.request import Decoder, SentEvent
from labkit.streaming.after_prose import AfterProse, progressive
from labkit.streaming.cancel import StopWhen, tokens_saved
from labkit.streaming.conditions import AnyOf, Condition, EnoughWords, Gone, JsonComplete, Repeating, Said
from labkit.streaming.paced import Paced
from labkit.streaming.partial_json import Final, Malformed, PartialJSON
from labkit.streaming.perceived import WORDS_PER_S, Reading, buffered, streamed, token_arrivals, word_arrivals
from labkit.streaming.resume import Resumable, StreamGone
from labkit.streaming.sse import KEEP_ALIVE, MEDIA_TYPE, encode, frame, to_event
from labkit.streaming.useful import FirstUseful, JsonFields, Kind, first_useful_at

__all__ = [
    "KEEP_ALIVE",
    "MEDIA_TYPE",
    "WORDS_PER_S",
    "AfterProse",
    "AnyOf",
    "Condition",
    "Decoder",
    "EnoughWords",
    "Final",
    "FirstUseful",
    "Gone",
    "JsonComplete",
    "JsonFields",
    "Kind",
    "Malformed",
    "Paced",
    "PartialJSON",
    "Reading",
    "Repeating",
    "Resumable",
    "Said",
    "SentEvent",
    "StopWhen",
    "StreamGone",
    "buffered",
    "encode",
    "first_useful_at",
    "frame",
    "progressive",
    "streamed",
    "to_event",
    "token_arrivals",
    "tokens_saved",
    "word_arrivals",
]
