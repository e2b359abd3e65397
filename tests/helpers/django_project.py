"""A Django project, the example, on the test's own database. It runs in processes of its own.

Django's settings are global to a process, so the tests write scripts and run manage.py, as its users do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "django"
PSYCOPG2 = """
import sys
sys.modules["psycopg"] = None  # Django prefers psycopg 3 if it can be imported
import django.db.backends.postgresql.psycopg_any
import django.db.backends.postgresql.base
del sys.modules["psycopg"]
"""


class Project:
    """The example project, with settings and handlers of the test's own if it writes them."""

    manage_py = EXAMPLE / "manage.py"

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        parts = conninfo_to_dict(dsn)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        address = {
            "PGHOST": "host",
            "PGPORT": "port",
            "PGUSER": "user",
            "PGDATABASE": "dbname",
            "PGPASSWORD": "password",
        }
        kept |= {name: str(parts[key]) for name, key in address.items() if parts.get(key)}
        kept |= {"PYTHONPATH": f"{folder}:{EXAMPLE}", "DJANGO_SETTINGS_MODULE": "shop.settings", "COLUMNS": "200"}
        self.env, self.folder = kept | {"PYTHONUNBUFFERED": "1"}, folder
        self.started: list[subprocess.Popen[str]] = []

    def settings(self, text: str) -> None:
        """Use settings that import those of the example and change them."""
        (self.folder / "own_settings.py").write_text("from shop.settings import *\n" + textwrap.dedent(text))
        self.env["DJANGO_SETTINGS_MODULE"] = "own_settings"

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these words, and wait until it exits."""
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.folder,
            env=self.env,
        )

    def manage(self, *words: str) -> str:
        """Run manage.py, which must succeed, and return its output."""
        done = self.call(str(self.manage_py), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def script(self, *parts: str, before: str = "") -> list[str]:
        """Run a script in the project, which must succeed, and return the lines that it printed.

        before: what the script does before it sets Django up.
        """
        text = "\n".join([before, "import django", "django.setup()", *map(textwrap.dedent, parts)])
        (self.folder / "script.py").write_text(text)
        done = self.call("script.py")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start Python with these words. Its log goes to the file `log`."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=log, text=True, cwd=self.folder, env=self.env
            )
        self.started.append(process)
        return process

    def worker(self, *words: str) -> subprocess.Popen[str]:
        """Start `manage.py pgjobq worker`."""
        return self.start(str(self.manage_py), "pgjobq", "worker", *words)

    def log(self) -> str:
        """Return what the started processes have written."""
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        """End what was started."""
        for process in self.started:
            process.terminate()
        for process in self.started:
            process.wait(30)
        self.started.clear()
