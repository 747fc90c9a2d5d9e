"""Engine arguments that this machine cannot serve are refused before an engine is started."""

from __future__ import annotations

import pytest

from labkit.engines import EngineArgumentError
from labkit.engines.host import arguments
from labkit.engines.host.arguments import ArgumentCheck, has_avx512


def test_the_processors_flags_say_what_torch_says() -> None:
    torch = pytest.importorskip("torch")
    assert has_avx512() == torch.cpu._is_avx512_supported()


@pytest.mark.parametrize(("on_cpu", "wide", "refused"), [(True, False, True), (True, True, False), (False, False, False)])
def test_eight_bits_are_refused_where_the_processor_cannot_do_them(
    on_cpu: bool, wide: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    check = ArgumentCheck()
    monkeypatch.setattr(check, "on_cpu", on_cpu)
    monkeypatch.setattr(arguments, "has_avx512", lambda: wide)
    assert check.flags("m", {"kv_cache_dtype": "auto"}) == ["--model", "m", "--kv-cache-dtype=auto"]
    if refused:
        with pytest.raises(EngineArgumentError, match=r"kv_cache_dtype='fp8_e4m3'.*AVX-512.*leave it out"):
            check.flags("m", {"kv_cache_dtype": "fp8_e4m3"})
    else:
        assert check.flags("m", {"kv_cache_dtype": "fp8_e4m3"})[-1] == "--kv-cache-dtype=fp8_e4m3"
