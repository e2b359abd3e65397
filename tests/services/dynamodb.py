"""DynamoDB Local, which is Amazon's and needs Java, and moto's server, which replaces it without Java."""

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
    """Return a server of the kind that is installed, not yet started. Raise ServiceMissing if neither is."""
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
        """Return the endpoint. It accepts any region and credentials."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Return whether it answers an HTTP request, even if the answer is an error."""
        with connection(self.port) as client:
            client.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return client.recv(5) == b"HTTP/"


class DynamoDBLocal(_Http):
    """DynamoDB Local, run by Java."""

    name = "DynamoDB Local"

    @classmethod
    def find(cls) -> Path:
        """Return the folder of the jar."""
        found = next(CACHE.glob("dynamodb/package/lib/*/DynamoDBLocal.jar"), None)
        if found is None:
            raise ServiceMissing("DynamoDB Local is not installed")
        return found.parent

    @classmethod
    def check(cls) -> None:
        """Check that the jar and Java are installed."""
        cls.find()
        if shutil.which("java") is None:
            raise ServiceMissing("Java is not installed")

    def command(self) -> Sequence[str]:
        """Run the jar without the optimizing compiler, which does not pay off in a short run."""
        if self.durable:
            (self.folder / "data").mkdir(exist_ok=True)
        jar = self.find()
        java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", f"-Djava.io.tmpdir={self.folder}"]
        data = ["-dbPath", str(self.folder / "data")] if self.durable else ["-inMemory"]
        server = [f"-Djava.library.path={jar / 'DynamoDBLocal_lib'}", "-jar", str(jar / "DynamoDBLocal.jar")]
        return [*java, *server, *data, "-sharedDb", "-disableTelemetry", "-port", str(self.port)]


class Moto(_Http):
    """moto_server, an emulator. It keeps no data when it ends."""

    name = "moto's server"

    @classmethod
    def find(cls) -> Path:
        """Return the program, which is in the folder of this Python."""
        found = Path(sys.executable).with_name("moto_server")
        if not found.exists():
            raise ServiceMissing(MISSING)
        return found

    @classmethod
    def check(cls) -> None:
        """Check that moto_server is installed."""
        cls.find()

    def environment(self) -> Mapping[str, str]:
        """Return the environment, without the user's AWS settings."""
        return {**super().environment(), "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}

    def command(self) -> Sequence[str]:
        """Run moto_server on our port."""
        return [str(self.find()), "-H", "127.0.0.1", "-p", str(self.port)]
