"""The same memory in chunks of the longest answer and in blocks: how many requests fit."""

from labkit import kvcache

asked = [kvcache.Lengths(prompt=100, output=50, maximum=1024)] * 40
for how, use in (
    ("chunks", kvcache.contiguous(asked, 4096, written=1.0)),
    ("blocks", kvcache.paged(asked, 4096, block_size=16, written=1.0)),
):
    print(how, use.sequences, "sequences,", use.used, "tokens in use")
