"""Inference Cost Lab: the real code behind the notebooks.

A *handler* turns a request into a stream of events; an engine is a handler, and every lever (cache, router, batcher, …)
is a handler around the next one. Start reading at `labkit.request`.
"""

__version__ = "0.1.0"
