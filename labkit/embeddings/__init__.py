"""Texts as vectors; the inner product of two vectors says how alike the texts are.

`embedder()` is all-MiniLM-L6-v2. It comes in a PyPI package and needs no network. With a network, you can name any other
sentence-transformers model. Everything that turns texts into vectors, and whose `name` differs from that of any other model,
is an `Embedder`. `unit` scales its vectors to length one, or refuses them.
"""

from labkit.embeddings.sentence import Embedder, SentenceEmbedder, embedder
from labkit.embeddings.vectors import BadVector, Vectors, is_unit, unit

__all__ = ["BadVector", "Embedder", "SentenceEmbedder", "Vectors", "embedder", "is_unit", "unit"]
