"""The time from the start of a worker process to its first claim, and the time to import pgjobq."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psycopg

from bench.harness import WORKER, Bench, Connection, files, process, value, variables, wait_until
from bench.rows import Line, Row

BARE = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    conn.execute("select id from pgjobq.claim_jobs(1, '{default}', 100)")
"""  # claims all jobs, because a worker that was stopped may have released its job


def start(bench: Bench) -> list[Line]:
    """Measure the time from exec of `pgjobq worker` to its first claim, and the time of `import pgjobq`."""
    figures, floors, imports, bare = [], [], [], []
    with bench.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(bench.sizes.starts):
            with files() as folder:
                figures.append(_first_claim(conn, _command(), variables(dsn, folder)))
            floors.append(_first_claim(conn, [sys.executable, "-c", BARE, dsn], {}))
            bare.append(_python("pass"))
            imports.append(_python("import pgjobq") - bare[-1])
    return [
        Row(
            measure="start",
            name="pgjobq worker, exec to first claim",
            unit="s",
            floor_name="bare Python: import psycopg, connect, claim_jobs",
            figures=figures,
            floors=floors,
            aim="<= 0.5",
            aim_on="figure",
        ),
        Row(
            measure="start",
            name="import pgjobq, over bare Python",
            unit="ms",
            floor_name="bare Python, start to end",
            figures=imports,
            floors=bare,
            aim="<= 50",
            aim_on="figure",
        ),
    ]


def _command() -> list[str]:
    """Return the command that a user runs, if it is installed in this Python's folder, or `python -m pgjobq`."""
    installed = Path(sys.executable).with_name("pgjobq")
    return [str(installed), *WORKER[3:]] if installed.exists() else list(WORKER)


def _first_claim(conn: Connection, command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds from exec to the start of the pending job. Both times are from the same machine's clock."""
    job_id = value(conn, """select pgjobq.enqueue_job('noop', '{"n": 1}')""")
    started = "select extract(epoch from started_at)::float8 from pgjobq.jobs where id = %s"
    begun = time.time()
    with process(command, environment):
        wait_until(lambda: value(conn, started, [job_id]) is not None, "the job was not claimed")
    return float(value(conn, started, [job_id])) - begun


def _python(code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - begun) * 1000
