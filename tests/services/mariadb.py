"""MariaDB, installed by the system's package manager."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from pgjobq.devserver import programs
from pgjobq.devserver.programs import Identity
from services.server import Server, ServerFailed, ServiceMissing, connection

PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def _find(program: str) -> str:
    if found := shutil.which(program, path=PLACES):
        return found
    raise ServiceMissing(f"MariaDB's {program} is not installed")


class MariaDB(Server):
    """mariadbd. It refuses to run as root; root's tests run it as the same user as PostgreSQL."""

    name = "MariaDB"

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__(durable=durable)
        self.password = secrets.token_hex(8)

    @classmethod
    def check(cls) -> None:
        """Check that mariadbd and the script that creates its system tables are installed."""
        _find("mariadbd")
        _find("mariadb-install-db")

    @property
    def url(self) -> str:
        """Return SQLAlchemy's URL of the database pgjobq. The user may create other databases."""
        return f"mysql+pymysql://pgjobq:{self.password}@127.0.0.1:{self.port}/pgjobq"

    def identity(self) -> Identity:
        """Return a user other than root."""
        return programs.unprivileged()

    def prepare(self) -> None:
        """Create the system tables, and the script that creates the user and the database."""
        (self.folder / "tmp").mkdir()
        user = f"'pgjobq'@'127.0.0.1' identified by '{self.password}'"
        script = self.folder / "init.sql"
        script.write_text(
            "create database if not exists pgjobq character set utf8mb4;\n"
            f"create user if not exists {user};\n"
            "grant all on *.* to 'pgjobq'@'127.0.0.1' with grant option;\n"
        )
        self._hand_over(self.folder / "tmp", script)
        made = self.spawn(
            _find("mariadb-install-db"),
            *self._common(),
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        )
        if made.wait() != 0:
            raise ServerFailed(f"mariadb-install-db failed:\n{self.log_tail()}")

    def _hand_over(self, *paths: Path) -> None:
        if identity := self.identity():
            for path in paths:
                os.chown(path, identity["user"], identity["group"])

    def _common(self) -> list[str]:
        return ["--no-defaults", f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder / 'tmp'}"]

    def command(self) -> Sequence[str]:
        """Run mariadbd. It does not sync at a commit, because committed data survives a kill of the process without that."""
        return [
            _find("mariadbd"),
            *self._common(),
            f"--socket={self.folder / 's.sock'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'init.sql'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-log-bin",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=64M",
            "--max-connections=200",
        ]

    def answers(self) -> bool:
        """Return whether the server sends its greeting to a new connection."""
        with connection(self.port) as client:
            return client.recv(1) != b""
