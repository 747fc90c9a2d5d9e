"""Hit ratio of a prefix cache against its size, on the public block-hash traces.

    LABKIT_TRACES=FOLDER python -m benchmarks.prefix_traces

A block has 512 tokens. The cache evicts the least recently used block first and, of one request, the tail before the
beginning. Every request is cached whole before the next one comes. Bytes are those of an 8B model's keys and values (Llama
3.1's shape, bfloat16). The last row is the limit that no cache can pass; the test suite compares it with the traces'
published numbers.
"""

from __future__ import annotations

import gzip
import json

from labkit.caches import block_hits
from labkit.load import traces_dir

BLOCK = 512
BYTES_PER_TOKEN = 2 * 32 * 8 * 128 * 2  # keys and values, layers, KV heads, head size, bytes a number
SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, None)


def main() -> None:
    """Print the table."""
    print("| blocks | GiB of an 8B model | conversation | synthetic |\n|---|---|---|---|")
    requests = {}
    for name in ("conversation", "synthetic"):
        with gzip.open(traces_dir() / f"mooncake_{name}.jsonl.gz", "rt") as lines:
            requests[name] = [json.loads(line)["hash_ids"] for line in lines]
    for size in SIZES:
        found = [block_hits(ids, size) for ids in requests.values()]
        room = "" if size is None else f"{size * BLOCK * BYTES_PER_TOKEN / 2**30:,.0f}"
        shares = " | ".join(f"{h.hits / h.blocks:.1%}" for h in found)
        print(f"| {'endless' if size is None else f'{size:,}'} | {room} | {shares} |")


if __name__ == "__main__":
    main()
