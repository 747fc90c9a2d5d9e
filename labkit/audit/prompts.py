"""What stands for a prompt where the prompt itself is not kept: hashes of its beginnings, and of the whole."""

from __future__ import annotations

from hashlib import blake2b

from labkit.logs import Call

BLOCK_BYTES = 512
"""About 128 tokens of English, the step in which OpenAI counts."""


def blocks(call: Call) -> tuple[bytes, ...]:
    """The prompt's blocks, each as a hash of the model and all before it; () for a call without prompt or block hashes."""
    if call.turns:
        raw = "".join(f"<{role}>\n{content}\n" for role, content in call.turns).encode("utf-8", "surrogatepass")
        parts = [raw[i : i + BLOCK_BYTES] for i in range(0, len(raw), BLOCK_BYTES)]
    elif call.block_hashes:
        parts = [str(block).encode() for block in call.block_hashes]
    else:
        return ()
    before = call.model.encode("utf-8", "surrogatepass")
    found = []
    for one in parts:
        before = blake2b(before + one, digest_size=8).digest()
        found.append(before)
    return tuple(found)


def asked(call: Call, chain: tuple[bytes, ...]) -> bytes | None:
    """A hash of what was asked, of which model, and for which tenant; None without a prompt. `chain`: its `blocks`."""
    if call.turns:
        return digest(f"{call.tenant}\0{len(call.turns)}\0{chain[-1].hex()}")
    if call.prompt_key:
        return digest(f"{call.tenant}\0{call.model}\0{call.prompt_key}")
    return digest(f"{call.tenant}\0{chain[-1].hex()}") if chain else None


def digest(text: str) -> bytes:
    """8 bytes that stand for a text; two of 10⁶ texts share theirs with a probability below 10⁻⁷."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
