from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def runtime() -> Iterator[None]:
    """An engine host of the tests' own, which nobody else shares; short, as Unix sockets need it."""
    path = tempfile.mkdtemp(prefix="lkb-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNTIME_DIR", path)
        yield
    shutil.rmtree(path, ignore_errors=True)
