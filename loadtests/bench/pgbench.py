"""Runs pgbench, which can open many connections and needs little processor time."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from bench.harness import PATIENCE
from pgjobq.devserver import find_bindir


def pgbench(dsn: str, statement: str, clients: int, seconds: int, *, rate: int = 0) -> float:
    """Return the transactions a second after the warm-up.

    rate: how many transactions a second start, at random moments; 0: no limit. In the first second, each session fills
    its caches and makes its plans. pgbench also counts the time to connect. On a busy machine this can take all the
    time, so the run is repeated with more.
    """
    for connecting in (1, 3, 10):
        processed, found = _run(dsn, statement, clients, seconds + connecting, rate)
        if processed:
            return found
    raise RuntimeError(f"{clients} clients of pgbench did not get to work in {seconds + connecting} s")


def _run(dsn: str, statement: str, clients: int, seconds: int, rate: int) -> tuple[int, float]:
    where = conninfo_to_dict(dsn)
    env = {**os.environ, "PGPASSWORD": str(where["password"])}
    with tempfile.TemporaryDirectory(prefix="pgjobq-bench-") as folder:
        script = Path(folder) / "script.sql"
        script.write_text(statement)
        command = [str(find_bindir() / "pgbench"), "--no-vacuum", "--protocol", "prepared", "--file", str(script)]
        command += ["--time", str(seconds), "--progress", "1"]
        command += ["--client", str(clients), "--jobs", str(min(clients, os.cpu_count() or 1))]
        command += ["--rate", str(rate)] if rate else []
        for option, key in (("--host", "host"), ("--port", "port"), ("--username", "user")):
            command += [option, str(where[key])]
        command.append(str(where["dbname"]))
        limit = PATIENCE + seconds
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=limit)
    processed = re.search(r"transactions actually processed: (\d+)", done.stdout)
    if done.returncode != 0 or processed is None or re.search(r"failed transactions: [1-9]", done.stdout):
        raise RuntimeError(f"pgbench failed: {done.stdout}{done.stderr}")
    warm = [float(tps) for tps in re.findall(r"progress: [\d.]+ s, ([\d.]+) tps", done.stderr)[1:]]
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    return int(processed[1]), statistics.fmean(warm) if warm else float(found[1]) if found else 0.0
