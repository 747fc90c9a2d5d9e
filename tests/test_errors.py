"""Who has to mend an error is in its status: the caller, whoever runs the lab, or the engine."""

import importlib
import pkgutil

import pytest

import labkit
from labkit.errors import STATUS, status_of
from labkit.request import DeadlineExceeded, EngineError, InvalidRequest, InvalidValue, LabError


def errors(kind=LabError):
    for found in kind.__subclasses__():
        yield found
        yield from errors(found)


def test_every_public_error_has_a_status_of_its_own_in_the_table():
    exported = []
    for room in pkgutil.iter_modules(labkit.__path__):
        if room.ispkg:
            face = importlib.import_module(f"labkit.{room.name}")
            exported += [getattr(face, name) for name in face.__all__]
    public = [kind for kind in errors() if kind in exported]
    assert len(public) > 20
    elsewhere = {
        "ChartError", "ExerciseError", "TokenizerUnavailable", "CalibrationError",  # no request meets these
        "NotOpen", "Unusable",  # become a LedgerError or a CacheError before anybody sees them
    }  # fmt: skip
    missing = [kind.__name__ for kind in public if kind not in STATUS and kind.__name__ not in elsewhere]
    assert not missing, missing


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("max_tokens is 0"), 400),
        (InvalidValue("limit is 0"), 500),
        (EngineError("busy", status=429), 429),
        (EngineError("wrong key", status=401), 502),
        (EngineError("it fell over", status=500), 502),
        (EngineError("it fell over"), 502),
        (DeadlineExceeded("late"), 504),
        (KeyError("x"), 500),
    ],
)
def test_the_status_says_who_can_mend_it(error, status):
    assert status_of(error) == status


def test_a_damaged_price_list_is_not_the_callers_fault():
    from labkit.cost import self_defined

    with pytest.raises(InvalidValue) as caught:
        self_defined("m", "a dollar", "1")
    assert status_of(caught.value) == 500
    assert not isinstance(caught.value, InvalidRequest)
