"""Describes a run: the machine, the versions and the settings."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg

import pgjobq
from bench.harness import CONCURRENCY, LOADTESTS, SETTINGS, value

MORE_SETTINGS = ("wal_sync_method", "max_connections", "checkpoint_timeout", "autovacuum", "track_io_timing")


def about(dsn: str) -> dict[str, Any]:
    """Return what a reader needs to judge the figures."""
    with psycopg.connect(dsn) as conn:
        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": machine(),
            "versions": {
                "postgresql": value(conn, "show server_version"),
                "python": platform.python_version(),
                "pgjobq": pgjobq.__version__,
                **{name: version(name) for name in ("psycopg", "psycopg-pool")},
                "libpq": psycopg.pq.version(),
                "psycopg_impl": psycopg.pq.__impl__,
                "commit": _commit(),
            },
            "settings": {
                name: value(conn, "select current_setting(%s)", [name]) for name in (*SETTINGS, *MORE_SETTINGS)
            },
            "worker": {"concurrency": CONCURRENCY},
        }


def machine() -> dict[str, Any]:
    """Return the cores, processor, memory, system and load average."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    """Return the processor's name, if /proc contains it."""
    told = Path("/proc/cpuinfo")
    for line in told.read_text().splitlines() if told.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str:
    """Return the measured commit, or an empty string outside a checkout."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, cwd=LOADTESTS, capture_output=True, text=True, check=False)
    return done.stdout.strip()
