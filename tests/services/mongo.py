"""SecantusDB: it speaks MongoDB's protocol, over MongoDB's storage engine. No registry has MongoDB itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from services.server import Server, ServiceMissing, connection


class SecantusDB(Server):
    """secantusd-py, from its wheel. Under the GPL: run as a program of its own, and imported nowhere."""

    name = "SecantusDB"

    @classmethod
    def find(cls) -> Path:
        """The program, beside this Python."""
        found = Path(sys.executable).with_name("secantusd-py")
        if not found.exists():
            raise ServiceMissing("SecantusDB, which stands in for MongoDB, is not installed")
        return found

    @classmethod
    def check(cls) -> None:
        """The program."""
        cls.find()

    @property
    def url(self) -> str:
        """Without a database."""
        return f"mongodb://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """An empty settings file, so that nobody's own is read."""
        (self.folder / "secantusd.toml").touch()

    def command(self) -> Sequence[str]:
        """The server; what it acknowledges is not on its disk unless that is said."""
        files = ["--config", str(self.folder / "secantusd.toml"), "--storage-path", str(self.folder / "data")]
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        kept = ["--sync-on-commit"] if self.durable else []
        return [str(self.find()), *files, *where, *kept, "--log-level", "WARNING"]

    def answers(self) -> bool:
        """It takes connections."""
        with connection(self.port):
            return True
