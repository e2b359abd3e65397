"""SecantusDB, which has MongoDB's protocol and storage engine. MongoDB itself is in no package registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from services.server import Server, ServiceMissing, connection


class SecantusDB(Server):
    """secantusd-py, from its wheel. Its licence is the GPL, so we run it as a program and never import it."""

    name = "SecantusDB"

    @classmethod
    def find(cls) -> Path:
        """Return the program, which is in the folder of this Python."""
        found = Path(sys.executable).with_name("secantusd-py")
        if not found.exists():
            raise ServiceMissing("SecantusDB, which stands in for MongoDB, is not installed")
        return found

    @classmethod
    def check(cls) -> None:
        """Check that secantusd-py is installed."""
        cls.find()

    @property
    def url(self) -> str:
        """Return the URL without a database."""
        return f"mongodb://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Create an empty settings file, so that the server does not read the user's."""
        (self.folder / "secantusd.toml").touch()

    def command(self) -> Sequence[str]:
        """Run the server. It syncs at each commit only if `durable` is true."""
        files = ["--config", str(self.folder / "secantusd.toml"), "--storage-path", str(self.folder / "data")]
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        kept = ["--sync-on-commit"] if self.durable else []
        return [str(self.find()), *files, *where, *kept, "--log-level", "WARNING"]

    def answers(self) -> bool:
        """Return whether the server accepts connections."""
        with connection(self.port):
            return True
