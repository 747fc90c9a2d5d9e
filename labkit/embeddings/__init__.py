"""Texts as vectors whose inner product says how alike they are.

`embedder()` is all-MiniLM-L6-v2, which comes in a PyPI package and needs no network; with one, any sentence-transformers
model can be named instead. Whatever turns texts into unit vectors and can tell itself from other models is an `Embedder`.
"""

from labkit.embeddings.embedder import Embedder, SentenceEmbedder, Vectors, embedder

__all__ = ["Embedder", "SentenceEmbedder", "Vectors", "embedder"]
