"""The records of a file, one by one, with the lines that hold none: JSON lines, one JSON list, or a table (CSV)."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labkit.logs.call import BadLine
from labkit.request import InvalidValue

Record = tuple[int, Mapping[str, Any]]
"""The number of its line (from 1) and its fields."""
_GZIP = b"\x1f\x8b"
LISTS = ("data", "logs", "results", "observations", "generations", "items", "calls", "spend_logs")
"""Where exports put their list of records."""
SECRET = re.compile(r"\b(?:sk|pk|rk|key|gsk|xai|hf|ghp|AIza)[-_][\w-]{8,}|\b[Bb]earer\s+\S+|\bBasic\s+\S{8,}")


def without_secrets(text: str) -> str:
    """`text` with everything that looks like a key taken out."""
    return SECRET.sub("[key]", text)


def read_text(path: Path) -> tuple[str, BadLine | None]:
    """The text of a file, compressed by gzip or not; where a compressed one ends too early, what is there and its end.

    A byte order mark is recognised. Raises `InvalidValue` for a folder and for what cannot be read.
    """
    if path.is_dir():
        raise InvalidValue(f"{path} is a folder; name one log file in it")
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"cannot read the log {path}: {error.strerror or error}") from error
    cut = False
    if packed.startswith(_GZIP):
        packed, cut = _unpacked(path)
    codec = "utf-16" if packed.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = packed.decode(codec, errors="surrogateescape" if codec == "utf-8-sig" else "replace")
    if not text.strip():
        raise InvalidValue(f"the log {path} is empty" + (" or cut off before its first byte of text" if cut else ""))
    last = text.count("\n") + 1
    return text, BadLine(last, "the compressed file ends here, before its end: it was cut off") if cut else None


def _unpacked(path: Path) -> tuple[bytes, bool]:
    parts = []
    try:
        with gzip.open(path) as file:
            while part := file.read1(1 << 20):
                parts.append(part)
    except (EOFError, zlib.error, OSError):
        return b"".join(parts), True
    return b"".join(parts), False


def records(text: str) -> tuple[str, list[Record], list[BadLine]]:
    """What the text was read as, its records, and its bad lines."""
    start = text.lstrip()[:1]
    if start == "[" or (start == "{" and not _is_json(_first_line(text))):
        whole = _whole(text)
        if whole is not None:
            return ("a JSON list", *whole)
    if start in ("{", "["):
        return ("JSON lines", *_json_lines(text))
    return ("a table", *_table(text))


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0]


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _whole(text: str) -> tuple[list[Record], list[BadLine]] | None:
    """The records of a text that is one JSON list, or an object around one; None where it is neither."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(given, dict):
        given = next((given[name] for name in LISTS if isinstance(given.get(name), list)), [given])
    return _sorted_out(enumerate(given, 1))


def _json_lines(text: str) -> tuple[list[Record], list[BadLine]]:
    found: list[Record] = []
    bad: list[BadLine] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            bad.append(BadLine(number, f"no JSON: {error.msg} at column {error.colno}"))
            continue
        except (ValueError, RecursionError):
            bad.append(BadLine(number, "no JSON: nested too deep, or a number too long"))
            continue
        one, other = _sorted_out([(number, row)])
        found += one
        bad += other
    return found, bad


def _sorted_out(rows: Any) -> tuple[list[Record], list[BadLine]]:
    found: list[Record] = []
    bad: list[BadLine] = []
    for number, row in rows:
        if isinstance(row, dict):
            found += [(number, one) for one in spans_of(row) if is_call(one)]
        else:
            bad.append(BadLine(number, f"a JSON {type(row).__name__}, not an object"))
    return found, bad


def spans_of(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The spans of a line of OTLP as JSON, which holds many; of any other line, the line itself.

    The attributes of a span, lists of keys and typed values there, come as a plain object, with the resource's behind them.
    """
    if not isinstance(row.get("resourceSpans"), list):
        return [row]
    found: list[Mapping[str, Any]] = []
    for resource in _objects(row["resourceSpans"]):
        outer = resource.get("resource")
        about = _attributes(outer.get("attributes")) if isinstance(outer, Mapping) else {}
        for scope in _objects(resource.get("scopeSpans")):
            found += [_span(span, about) for span in _objects(scope.get("spans"))]
    return found


def _span(span: Mapping[str, Any], about: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = _attributes(span.get("attributes"))
    status = span.get("status")
    failed = isinstance(status, Mapping) and status.get("code") in (2, "STATUS_CODE_ERROR")
    return {
        "start_time": span.get("startTimeUnixNano"),
        "end_time": span.get("endTimeUnixNano"),
        "id": span.get("spanId"),
        "name": span.get("name"),
        "error": inner.get("error.type") or ("error" if failed else None),
        "attributes": {**about, **inner},
        "otlp": True,
    }


def is_call(record: Mapping[str, Any]) -> bool:
    """Whether a span of OTLP tells of a call to a model, as one with a `gen_ai` model or usage does; True for all else."""
    if record.get("otlp") is not True:
        return True
    return any(
        name.startswith(("gen_ai.usage", "gen_ai.request.model", "gen_ai.response.model")) for name in record["attributes"]
    )


def _objects(given: Any) -> list[Mapping[str, Any]]:
    return [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []


def _attributes(given: Any) -> dict[str, Any]:
    return {str(one.get("key")): _plain(one.get("value")) for one in _objects(given)}


def _plain(value: Any) -> Any:
    """The value of an OTLP attribute: `{"intValue": "5"}` is 5, since OTLP writes whole numbers as text."""
    if not isinstance(value, Mapping):
        return value
    for name, inner in value.items():
        if name == "arrayValue" and isinstance(inner, Mapping):
            return [_plain(one) for one in inner.get("values") or ()]
        if name == "kvlistValue" and isinstance(inner, Mapping):
            return _attributes(inner.get("values"))
        return int(inner) if name == "intValue" and str(inner).lstrip("-").isdigit() else inner
    return None


def _table(text: str) -> tuple[list[Record], list[BadLine]]:
    header = _first_line(text)
    delimiter = next((mark for mark in ("\t", ";", ",", "|") if mark in header), ",")
    found: list[Record] = []
    bad: list[BadLine] = []
    reader = csv.reader(_fed(text), delimiter=delimiter, skipinitialspace=True)
    names: list[str] = []
    limit = csv.field_size_limit(max(len(text), 1 << 17))
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not names:
                names = [name.strip() for name in row]
            elif len(row) != len(names):
                bad.append(BadLine(reader.line_num, f"{len(row)} columns, and the header has {len(names)}"))
            else:
                found.append((reader.line_num, dict(zip(names, row, strict=True))))
    except csv.Error as error:
        bad.append(BadLine(reader.line_num, f"no row of a table: {error}"))
    finally:
        csv.field_size_limit(limit)
    return found, bad


def _fed(text: str) -> Iterator[str]:
    """The lines of a table; NUL bytes, which csv refuses, are taken out."""
    return (f"{line}\n" for line in text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").split("\n"))
