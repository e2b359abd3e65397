"""A server on a simulated slow disk. A small library, loaded before the C library, delays every flush."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.harness import server
from pgjobq.devserver import temporary_root

FLUSH_MS = 2
CHECKED = 20  # commits to check the delay
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <time.h>

static int delayed(int fd, const char *name) {
    int (*flush)(int) = (int (*)(int)) dlsym(RTLD_NEXT, name);
    struct timespec left = {0, DELAY_NS};
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {}
    return flush(fd);
}

int fdatasync(int fd) { return delayed(fd, "fdatasync"); }
int fsync(int fd) { return delayed(fd, "fsync"); }
"""


class NoSlowDisk(Exception):
    """The library cannot be built or loaded on this machine."""


@contextmanager
def slow_server() -> Iterator[str]:
    """Start a server whose flushes take FLUSH_MS longer, and yield its DSN. Raise NoSlowDisk if this is impossible."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoSlowDisk("there is no C compiler (cc, gcc, clang) to build the library that delays flushes")
    with tempfile.TemporaryDirectory(prefix="pgjobq-disk-", dir=_place()) as folder:
        library = _build(compiler, Path(folder))
        with server({"LD_PRELOAD": str(library)}) as dsn:
            _check(dsn)
            yield dsn


def _place() -> Path:
    """Return a folder that the server's user can read. If we are root, the server runs as another user."""
    root = temporary_root()
    others = 0o005
    open_to_all = all(folder.stat().st_mode & others == others for folder in (root, *root.parents))
    return root if open_to_all else Path("/var/tmp")  # noqa: S108  # under a name that is new


def _build(compiler: str, folder: Path) -> Path:
    folder.chmod(0o755)
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SOURCE)
    options = ["-shared", "-fPIC", "-O1", f"-DDELAY_NS={FLUSH_MS * 1_000_000}", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run([compiler, *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoSlowDisk(f"{compiler} cannot build the library that delays flushes: {done.stderr.strip()[-200:]}")
    library.chmod(0o755)
    return library


def _check(dsn: str) -> None:
    """Check the delay by commits, because a library that cannot be loaded only causes a line in the server's log."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create table checked (n integer)")
        started = time.perf_counter()
        for n in range(CHECKED):
            conn.execute("insert into checked values (%s)", [n])
        spent = (time.perf_counter() - started) / CHECKED * 1000
        conn.execute("drop table checked")
    if spent < FLUSH_MS:
        raise NoSlowDisk(f"the library that delays flushes was not loaded: a commit took {spent:.2f} ms")
