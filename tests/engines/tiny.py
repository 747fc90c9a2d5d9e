"""An untrained Llama of a few million parameters and its tokenizer: it talks nonsense, at a real model's pace."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CORPUS = ["The tent keeps you dry. Returns are free within thirty days of delivery; refunds reach your card in a week."] * 20
CONTEXT_WINDOW = 2048
TEMPLATE = "<s>{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def make_tokenizer(folder: Path, template: str) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<think>", "</think>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return fast


def make_tiny_model(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = make_tokenizer(folder, TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_WINDOW,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def make_scripted_model(folder: Path, script: list[str]) -> Path:
    """A Llama that says exactly `script` (tokens, each once) after any prompt, and then ends.

    Its attention and MLP add nothing, so each hidden state is its token's embedding, and the output layer maps each
    embedding to the next token of the script: a Markov chain in a real architecture.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = make_tokenizer(folder, "{# it may <think> #}" + TEMPLATE + "<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_WINDOW,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    chain = ["<pad>", *script, "</s>"]
    ids = fast.convert_tokens_to_ids(chain)
    assert len(set(ids)) == len(ids), "every token of the script must be known and come once"
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        embeddings = torch.nn.functional.normalize(torch.randn(len(fast), 128), dim=1)
        model.model.embed_tokens.weight.copy_(embeddings)
        model.lm_head.weight.zero_()
        for now, following in pairwise(ids):
            model.lm_head.weight[following] = 5 * embeddings[now]
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
