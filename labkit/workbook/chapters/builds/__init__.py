"""The long builds: one module a chapter, `bNN.py`, that exports `BUILD`, an `Exercise` with stages.

A build's reference and the checks of its stages are longer than the chapter's other exercises together. The chapter's own
module takes its `BUILD` into the chapter's exercises.
"""
