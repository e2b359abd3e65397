"""Tests that the files, functions, make targets and words in CONTRIBUTING.md and the glossary exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()

PATH = re.compile(r"(?<![\w./])(?:pgjobq|sql|tests|docs|loadtests)/(?:[\w./*-]|<\w+>)*")
STAGE = re.compile(r"^\| \d+\w? \| `([^`]+)` \| (.*) \|$", re.MULTILINE)  # a row of the table "The life of a job"
TERMS = re.findall(r"^(\w[\w ]*)\n:   ", GLOSSARY, re.MULTILINE)


def paths() -> set[str]:
    """Return every path on the page, with * in place of the parts that a reader fills in."""
    found = {path.rstrip(".") for path in PATH.findall(PAGE)}
    return {re.sub(r"<\w+>|NNNN_name", "*", path).rstrip("/") for path in found}


@pytest.mark.parametrize("path", sorted(paths()))
def test_path_on_the_map_exists(path: str) -> None:
    assert list(ROOT.glob(path)), f"CONTRIBUTING.md names {path}, which does not exist"


@pytest.mark.parametrize(("path", "text"), STAGE.findall(PAGE), ids=[path for path, _ in STAGE.findall(PAGE)])
def test_functions_in_the_life_of_a_job_exist(path: str, text: str) -> None:
    head = text.partition(":")[0]
    source = (ROOT / path).read_text()
    for name in re.findall(r"`(\w+)`", head):
        assert re.search(rf"(?:def|class|function) {name}\b", source), f"{path} has no {name}"


def test_number_of_files_in_the_life_of_a_job() -> None:
    (told,) = re.findall(r"(\d+) files; helpers", PAGE)
    assert int(told) == len(re.findall(r"^\| \d+ \|", PAGE, re.MULTILINE))


def test_targets_of_make_exist() -> None:
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", PAGE, re.MULTILINE)) <= there


@cache
def code() -> str:
    """Return all SQL and Python code, in which the words of the glossary must occur."""
    files = [*(ROOT / "sql").rglob("*.sql"), *(ROOT / "pgjobq").rglob("*.py")]
    return "\n".join(file.read_text() for file in files)


@pytest.mark.parametrize("term", TERMS)
def test_word_of_the_glossary_is_in_use(term: str) -> None:
    words = re.sub(r" ", r"[ _-]", term)
    assert re.search(rf"(?<![a-z]){words}", code(), re.IGNORECASE), f"the code does not contain the word {term!r}"


def test_words_of_the_glossary_are_sorted_and_unique() -> None:
    assert sorted(set(TERMS)) == TERMS


def test_glossary_has_every_table_and_every_key() -> None:
    migrations = "\n".join(path.read_text() for path in sorted((ROOT / "sql" / "migrations").glob("*.sql")))
    tables = set(re.findall(r"^create (?:unlogged )?table (\w+)", migrations, re.MULTILINE)) - {"schema_version"}
    private = ROOT / "sql" / "functions" / "private"
    keys = set(re.findall(r"when '(\w+)' +then", (private / "lock_class.sql").read_text()))
    keys |= set(re.findall(r"when '(\w+)' +then pg_try", (private / "hold_keys.sql").read_text()))
    assert len(tables) > 5
    assert len(keys) > 5
    assert {name for name in tables | keys if name not in TERMS and name.removesuffix("s") not in TERMS} == set()
