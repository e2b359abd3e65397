"""The command line prints a job's texts as plain text: no markup, no emoji, no control sequences."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cli import NOT_DONE, NOT_FOUND, Cli, made

from pgjobq import NewJob
from pgjobq.cli.logs import EventFormatter
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

NASTY = ":warning:[red]\x1b[31m\x1b]0;title\x07\x9b2J\r\u202etxt\u2028end"
ESCAPED = r":warning:[red]\x1b[31m\x1b]0;title\x07\x9b2J\r\u202etxt\u2028end"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command line on a file with one failed job, in which every text from the user contains control characters."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    storage = SQLAlchemyStorage(url)
    storage.enqueue_many([NewJob(id=NASTY, type=NASTY, queue=NASTY, data={NASTY: NASTY})])
    held = storage.dequeue()
    assert held is not None
    storage.fail(NASTY, NASTY + "\nstatus       completed")
    with storage.engine.begin() as conn:
        conn.exec_driver_sql("update job_workers set name = ?", (NASTY,))
    storage.close()
    yield from made(url, tmp_path)


def is_plain(text: str) -> bool:
    """Return whether the text has no control characters except newlines, and no emoji in place of its name."""
    controls = [c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} and c != "\n"]
    return not controls and "\N{WARNING SIGN}" not in text


def test_list_prints_plain_text(cli: Cli) -> None:
    printed = cli.said("list")
    assert is_plain(printed)
    assert printed.count(ESCAPED) == 3  # id, type and queue
    assert len(printed.splitlines()) == 2


def test_show_prints_plain_text(cli: Cli) -> None:
    printed = cli.said("show", NASTY)
    assert is_plain(printed)
    lines = printed.splitlines()
    assert f"id           {ESCAPED}" in lines
    assert f"error        {ESCAPED}" in lines
    assert [line for line in lines if line.startswith("status")] == ["status       failed"]
    data = next(line for line in lines if line.startswith("data")).split(maxsplit=1)[1]
    assert json.loads(data) == {NASTY: NASTY}


def test_stats_prints_plain_text(cli: Cli) -> None:
    printed = cli.said("stats")
    assert is_plain(printed)
    assert printed.count(ESCAPED) == 2  # the queue and the worker's name


@pytest.mark.parametrize("words", [["list"], ["show", NASTY], ["stats"]])
def test_json_is_exact_and_prints_no_control_characters(cli: Cli, words: list[str]) -> None:
    printed = cli.said(*words, "--json")
    assert is_plain(printed)
    assert repr(NASTY)[1:-1] in repr(json.loads(printed))


def test_ids_and_errors_are_plain_text(cli: Cli) -> None:
    assert cli.said("enqueue", "t", "--id", "a\x1b[31m") == "a\\x1b[31m\n"
    assert cli.said("cancel", "a\x1b[31m") == "a\\x1b[31m\n"
    for status, words in (
        (NOT_FOUND, ["show", "\x1b[31m"]),
        (NOT_DONE, ["cancel", NASTY]),
        (NOT_FOUND, ["retry", "\x1b"]),
    ):
        assert is_plain(cli.complaint(status, *words))


@pytest.mark.parametrize("words", [["list"], ["show", "a"]])
def test_characters_that_the_encoding_lacks_are_escaped(cli: Cli, words: list[str]) -> None:
    cli.said("enqueue", "snow ☃", "--id", "a")
    printed = cli.said(*words, env=cli.environment | {"PYTHONIOENCODING": "latin-1"})
    assert r"snow \u2603" in printed


@pytest.mark.parametrize("as_json", [False, True])
def test_log_lines_are_plain_text(as_json: bool) -> None:
    formatter = EventFormatter(as_json=as_json)
    try:
        raise ValueError(NASTY + "\ud800")
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("pgjobq", logging.ERROR, __file__, 1, "event", None, info)
    record.job_id, record.error = NASTY, "a\ud800b\x1b"
    line = formatter.format(record)
    assert is_plain(line)
    line.encode()
    if as_json:
        assert json.loads(line)["job_id"] == NASTY
    else:
        assert json.loads(line.partition("job_id=")[2].partition(" error=")[0].replace("\\x", "\\u00")) == NASTY
