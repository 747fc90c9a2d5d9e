#!/bin/sh
# Print a Python that this project supports (3.11, 3.12 or 3.13), or say what to install. PYTHON=... names one by hand.
ok() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

if [ -n "$PYTHON" ]; then
    ok "$PYTHON" && { command -v "$PYTHON"; exit 0; }
    echo "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13 that starts. Fix: name one, or unset PYTHON." >&2
    exit 1
fi
for candidate in python3.11 python3.12 python3.13 python3 python; do
    ok "$candidate" && { command -v "$candidate"; exit 0; }
done
if command -v uv >/dev/null 2>&1; then
    for version in 3.12 3.13 3.11; do
        found=$(uv python find --no-project "$version" 2>/dev/null) && ok "$found" && { echo "$found"; exit 0; }
    done
fi
echo "No Python 3.11, 3.12 or 3.13 found ($(python3 --version 2>/dev/null || echo 'no python3 at all'))." >&2
echo "Fix: install one (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.12), or PYTHON=/path/to/python make ..." >&2
exit 1
