"""Where clients find the host: a socket in a private directory of the user."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

from labkit.request import LabError

# A Unix socket's address must fit sockaddr_un.sun_path: 108 bytes on Linux, 104 on macOS, with its closing NUL. vLLM's own
# sockets in an engine's directory ("…/engines/<8>/<uuid>") add about 60 to what runtime_dir() returns.
_LONGEST_RUNTIME_DIR = 45


def runtime_dir() -> Path:
    """The user's private directory for sockets, locks and engine logs; made with mode 0700 when it is missing.

    `LABKIT_RUNTIME_DIR` names another one. Raises `LabError` when another user owns it or can enter it, and when its path is
    too long for Unix sockets.
    """
    chosen = os.environ.get("LABKIT_RUNTIME_DIR")
    path = Path(chosen) if chosen else _default_runtime_dir()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LabError(
            f"{path} must be a directory that only you can use (owner {os.getuid()}, mode 700); it is owned by "
            f"{status.st_uid} with mode {stat.S_IMODE(status.st_mode):o}. Fix it with chmod 700, or set LABKIT_RUNTIME_DIR"
        )
    if len(str(path)) > _LONGEST_RUNTIME_DIR:
        raise LabError(
            f"the runtime directory {path} is too long for Unix sockets ({len(str(path))} characters, at most "
            f"{_LONGEST_RUNTIME_DIR}); set LABKIT_RUNTIME_DIR to a shorter one"
        )
    return path


def _default_runtime_dir() -> Path:
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and os.access(session, os.W_OK) and len(session) + len("/labkit") <= _LONGEST_RUNTIME_DIR:
        return Path(session) / "labkit"
    return Path("/tmp") / f"labkit-{os.getuid()}"  # not gettempdir(): every process of the user must come to the same place


def socket_path() -> Path:
    """The host's address, different for each Python environment and version of this code: no client meets another's host."""
    here = Path(__file__).parent
    digest = hashlib.sha256(sys.prefix.encode())
    for source in sorted(here.glob("*.py")):
        digest.update(source.read_bytes())
    return runtime_dir() / f"{digest.hexdigest()[:10]}.sock"
