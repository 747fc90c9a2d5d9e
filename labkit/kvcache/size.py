"""How many bytes the KV cache takes, with every factor shown.

A layer keeps, per token and KV head, a key and a value. Fewer heads make it smaller: all of them in MHA, one per group of
query heads in GQA (Ainslie et al., arXiv 2305.13245), one in MQA (Shazeer, arXiv 1911.02150). MLA keeps one compressed
vector and one rotated key for all heads together (DeepSeek-V2, arXiv 2405.04434). A layer with a sliding window keeps no
more tokens than its window, one that attends in chunks no more than a chunk. Layers with a recurrent state (Mamba, linear
attention) keep the same for any number of tokens.

Where transformers has the architecture, its own model shows what the layers keep. Where it does not, the configuration's
fields that vLLM reads are used (`labkit.latency.fields`).
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.latency import CacheLayers, Config, builds, layers_by_fields, precision_bytes, read_config, shape_of
from labkit.request import InvalidValue

_PRECISIONS = ("bf16", "fp16", "fp32", "fp8", "int8")
# vLLM's int8_per_token_head keeps two fp32 scales for each head of each token; its fp8 has one scale outside the cache.
_SCALE_BYTES = {"int8": 8}
# vLLM always keeps an indexer's keys (DeepSeek sparse attention) in fp8 with an fp32 scale per 128 numbers.
_INDEX_GROUP = 128


@dataclass(frozen=True, slots=True)
class KVSize:
    """The factors of a model's KV cache.

    `groups` are groups of layers that keep the same numbers of each token. A number takes `value_bytes` bytes; each head of
    each token takes `scale_bytes` more for quantization. `state_bytes`: bytes that a sequence keeps besides these, whatever
    its length (recurrent states, in bf16 or fp32 as transformers keeps them). `kind`: MHA, GQA, MQA or MLA.
    """

    name: str
    kind: str
    precision: str
    value_bytes: int
    scale_bytes: int
    groups: tuple[CacheLayers, ...]
    state_bytes: int = 0

    @property
    def layers(self) -> int:
        """The number of layers that keep keys and values."""
        return sum(group.count for group in self.groups)

    @property
    def full_layers(self) -> int:
        """The number of layers that keep every token."""
        return sum(group.count for group in self.groups if not group.window)

    @property
    def sliding_layers(self) -> int:
        """The number of layers that keep only the last tokens."""
        return self.layers - self.full_layers

    @property
    def window(self) -> int:
        """Tokens that sliding layers keep, the largest number where they differ; 0 where there are no such layers."""
        return max((group.window for group in self.groups), default=0)

    @property
    def heads(self) -> int:
        """KV heads of a layer, the largest number where layers differ."""
        return max(group.heads for group in self.groups)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in all layers, while it is inside every window."""
        return sum(group.count * self.layer_bytes(group) for group in self.groups)

    def layer_bytes(self, group: CacheLayers) -> int:
        """Bytes of one token in one layer of a group."""
        return group.heads * ((group.key + group.value) * self.value_bytes + self.scale_bytes) + self.index_bytes(group)

    def index_bytes(self, group: CacheLayers) -> int:
        """Bytes of one token's indexer keys in one layer of a group, 0 where there is no indexer."""
        return group.extra + 4 * -(-group.extra // _INDEX_GROUP)

    def sequence_bytes(self, tokens: int) -> int:
        """Bytes of a sequence of `tokens` tokens; sliding layers have dropped tokens older than their window."""
        _from_zero("tokens", tokens)
        held = sum(g.count * self.layer_bytes(g) * (min(tokens, g.window) if g.window else tokens) for g in self.groups)
        return held + (self.state_bytes if tokens else 0)

    @property
    def block_layers(self) -> int:
        """The number of layers that one of vLLM's blocks spans: all, unless some have a window and some do not.

        Where windows and full attention mix, vLLM makes groups with equal numbers of layers, and each group has its own
        blocks from one pool. A group has as many layers as the rarer kind, or as the more frequent kind where that has less
        than 1.5 times as many (vllm/v1/core/kv_cache_utils.py, `_get_kv_cache_groups_uniform_page_size`).
        """
        if not (self.full_layers and self.sliding_layers):
            return self.layers
        few, many = sorted((self.full_layers, self.sliding_layers))
        return many if many < 1.5 * few else few

    def block_bytes(self, block_size: int) -> int:
        """Bytes of one block of `block_size` tokens.

        Where layers keep unequal amounts and only some have a window, vLLM makes all blocks the same number of bytes, so
        blocks of layers that keep less hold more tokens (`unify_kv_cache_spec_page_size`). Raises `InvalidValue` for a
        `block_size` below 1, and for recurrent states, whose blocks vLLM pads by rules of the machine. Where the amounts do
        not divide evenly, only `sequence_blocks` raises.
        """
        if block_size < 1:
            raise InvalidValue(f"block_size is {block_size}; a block holds at least 1 token (vLLM's default is 16)")
        if self.state_bytes:
            raise InvalidValue(
                f"{self.name} keeps recurrent states beside keys and values, and vLLM pads both to blocks of one size that "
                "depends on the machine's kernels; use sequence_bytes, which counts both"
            )
        if not (self.full_layers and self.sliding_layers):
            return block_size * self.token_bytes
        return self.block_layers * block_size * self._largest()

    def sequence_blocks(self, tokens: int, block_size: int) -> int:
        """The most blocks that a writing sequence of `tokens` tokens holds, over all groups of layers.

        A window need not begin where a block begins, so it may reach into one block more than it fills. Only writing is
        counted: while a prompt is computed, vLLM also holds the tokens of the step besides those of the window. Raises
        `InvalidValue` where layers keep amounts that do not divide evenly.
        """
        _from_zero("tokens", tokens)
        if not (self.full_layers and self.sliding_layers):
            return _blocks(tokens, block_size, self.window)
        full = [self._size(group, block_size) for group in self.groups if not group.window]
        sliding = [(self._size(group, block_size), group.window) for group in self.groups if group.window]
        most_full = max(_blocks(tokens, size, 0) for size in full)
        most_sliding = max(_blocks(tokens, size, window) for size, window in sliding)
        return (
            -(-self.full_layers // self.block_layers) * most_full
            + -(-self.sliding_layers // self.block_layers) * most_sliding
        )

    @property
    def arithmetic(self) -> str:
        """The multiplication of the factors as text; a sum of several where layers keep unequal amounts."""
        products = [self._product(group) for group in self._alike()]
        state = f"; {self.state_bytes:,} B of state per sequence" if self.state_bytes else ""
        return f"{' + '.join(products)} = {self.token_bytes:,} B per token{state}"

    def _product(self, groups: list[CacheLayers]) -> str:
        first, count = groups[0], sum(group.count for group in groups)
        scale = f" + {self.scale_bytes} B of scales" if self.scale_bytes else ""
        if first.latent or first.key != first.value:
            numbers = f"{first.key} + {first.value} values" if not first.latent else f"1 × {first.key + first.value} values"
        else:
            numbers = f"2 × {first.key} values"
        layers = f"{count} layer{'s' if count > 1 else ''}"
        if windows := [group for group in groups if group.window]:
            kept = f"{max(group.window for group in windows):,} tokens at most"
            layers += f" ({sum(group.count for group in windows)} of them keep {kept})"
        heads = f"{first.heads} KV head{'s' if first.heads > 1 else ''} ({self.kind})"
        index = f" + {self.index_bytes(first)} B of index"
        each = f"({numbers} × {self.value_bytes} B ({self.precision}){scale}) × {heads}"
        return f"({each}{index}) × {layers}" if first.extra else f"{each} × {layers}"

    def _alike(self) -> list[list[CacheLayers]]:
        """The groups, with those together that differ only in their window."""
        found: dict[tuple[int, int, int, bool, int], list[CacheLayers]] = {}
        for group in self.groups:
            found.setdefault((group.heads, group.key, group.value, group.latent, group.extra), []).append(group)
        return list(found.values())

    def _largest(self) -> int:
        return max(self.layer_bytes(group) for group in self.groups)

    def _size(self, group: CacheLayers, block_size: int) -> int:
        """Tokens in a block of the group; raises `InvalidValue` where blocks of one size do not come out even."""
        own, largest = self.layer_bytes(group), self._largest()
        if largest % own:
            raise InvalidValue(
                f"{self.name} has layers that keep {own} and {largest} B of a token, and blocks of one size do not come out "
                "even; use sequence_bytes"
            )
        return block_size * largest // own


def kv_size(config: Config, precision: str = "bf16") -> KVSize:
    """The factors of the KV cache of a transformers configuration, with the cache in `precision`.

    Raises `InvalidValue` for a configuration that is not a model's, for an unknown precision, and for a model that keeps
    nothing per token (recurrent states only) or keeps it in a way that is not counted here, which the message names.
    """
    if precision not in _PRECISIONS:
        raise InvalidValue(f"precision {precision!r} is no KV cache's; use one of {', '.join(_PRECISIONS)}")
    given = read_config(config)
    name, state_bytes = str(given.get("model_type", "model")), 0
    if given.get("model_type") is None or builds(given):
        shape = shape_of(given)
        groups, state_bytes, queries = shape.layers, shape.state_bytes, shape.heads
    else:
        groups = layers_by_fields(given)
        queries = given.get("num_attention_heads") or given.get("n_head") or 0
    if not groups:
        raise InvalidValue(
            f"{name} keeps a state of {state_bytes:,} B per sequence and nothing per token: it has no KV cache"
        )
    return KVSize(
        name,
        _kind(groups, queries),
        precision,
        int(precision_bytes(precision)),
        _SCALE_BYTES.get(precision, 0),
        groups,
        state_bytes,
    )


def blocks_for(memory_bytes: int, config: Config, block_size: int = 16, precision: str = "bf16") -> int:
    """The blocks that vLLM makes of `memory_bytes` and reports as num_gpu_blocks; one, the null block, goes to no request.

    `block_size` is in tokens (vLLM's default: 16 on a GPU, 128 on a CPU). `precision` is that of vLLM's kv_cache_dtype
    (vLLM's "auto" is the model's own; "int8" here is int8_per_token_head). Source: vllm/v1/core/kv_cache_utils.py,
    `get_kv_cache_config_from_groups`.
    """
    _from_zero("memory_bytes", memory_bytes)
    return memory_bytes // kv_size(config, precision).block_bytes(block_size)


def _kind(groups: tuple[CacheLayers, ...], queries: int) -> str:
    most = max(group.heads for group in groups)
    if any(group.latent for group in groups):
        return "MLA"
    return "MHA" if most == queries else "MQA" if most == 1 else "GQA"


def _blocks(tokens: int, block_size: int, window: int) -> int:
    every = -(-tokens // block_size)
    return min(every, -(-window // block_size) + 1) if window else every


def _from_zero(name: str, value: int) -> None:
    if value < 0:
        raise InvalidValue(f"{name} is {value}; count from 0")
