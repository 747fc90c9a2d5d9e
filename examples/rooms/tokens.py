"""What a model reads: the pieces of a text, and the marks that a chat adds. Needs the extra "models"."""

from pathlib import Path

from labkit import request, tokens

tokenizer = tokens.tokenizer(str(Path(__file__).parents[2] / "data" / "models" / "large"))
text = "How late may I return a tent?"
print(tokenizer.pieces(text), tokenizer.count(text))
print("with the marks of a chat:", tokenizer.count_chat([request.Message("user", text)]))
print(tokenizer.decode(tokenizer.encode(text)))
