"""DynamoDB Local, Amazon's own, where there is Java; moto's server elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.server import Server, ServiceMissing, connection

CACHE = Path(__file__).resolve().parents[2] / ".services"
MISSING = "neither DynamoDB Local nor moto's server is installed"


def dynamodb(*, durable: bool = False) -> Server:
    """A server, not started, of the kind that there is. ServiceMissing when there is none."""
    for kind in (DynamoDBLocal, Moto):
        try:
            kind.check()
        except ServiceMissing:
            continue
        return kind(durable=durable)
    raise ServiceMissing(MISSING)


class _Http(Server):
    @property
    def url(self) -> str:
        """The endpoint; any region and any credentials do."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """It answers, if only that this is no request."""
        with connection(self.port) as client:
            client.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return client.recv(5) == b"HTTP/"


class DynamoDBLocal(_Http):
    """DynamoDBLocal.jar."""

    name = "DynamoDB Local"

    @classmethod
    def find(cls) -> Path:
        """The folder of the jar."""
        found = next(CACHE.glob("dynamodb/package/lib/*/DynamoDBLocal.jar"), None)
        if found is None:
            raise ServiceMissing("DynamoDB Local is not installed")
        return found.parent

    @classmethod
    def check(cls) -> None:
        """The jar, and Java."""
        cls.find()
        if shutil.which("java") is None:
            raise ServiceMissing("Java is not installed")

    def command(self) -> Sequence[str]:
        """The server; a short life does without the best compiler."""
        if self.durable:
            (self.folder / "data").mkdir(exist_ok=True)
        jar = self.find()
        java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", f"-Djava.io.tmpdir={self.folder}"]
        data = ["-dbPath", str(self.folder / "data")] if self.durable else ["-inMemory"]
        server = [f"-Djava.library.path={jar / 'DynamoDBLocal_lib'}", "-jar", str(jar / "DynamoDBLocal.jar")]
        return [*java, *server, *data, "-sharedDb", "-disableTelemetry", "-port", str(self.port)]


class Moto(_Http):
    """moto_server: it keeps nothing over an end, and is said to be an emulator."""

    name = "moto's server"

    @classmethod
    def find(cls) -> Path:
        """The program, beside this Python."""
        found = Path(sys.executable).with_name("moto_server")
        if not found.exists():
            raise ServiceMissing(MISSING)
        return found

    @classmethod
    def check(cls) -> None:
        """The program."""
        cls.find()

    def environment(self) -> Mapping[str, str]:
        """No telemetry, and no look at the user's own settings."""
        return {**super().environment(), "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}

    def command(self) -> Sequence[str]:
        """The server."""
        return [str(self.find()), "-H", "127.0.0.1", "-p", str(self.port)]
