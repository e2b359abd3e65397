"""The command line as a new user meets it: files, mistakes and narrow terminals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest
from helpers.cli import NOT_DONE, USAGE, Cli
from helpers.until import until

import pgjobq

HANDLER = "from pgjobq import job\n@job\ndef touch(name):\n    open(name, 'w').close()\n"


def test_version(lone_cli: Cli) -> None:
    assert lone_cli.said("--version") == f"pgjobq {pgjobq.__version__}\n"


@pytest.mark.parametrize("file", ["mine.py", "./mine.py", "app/mine.py", "odd-folder/mine.py"])
def test_worker_takes_the_path_of_a_file(cli: Cli, file: str) -> None:
    path = cli.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"import neighbour\n{HANDLER}" if "odd" in file else HANDLER)
    (path.parent / "neighbour.py").touch()
    cli.said("enqueue", "touch", '{"name": "done"}')
    cli.start("worker", file)
    until((cli.folder / "done").exists, 30)


def test_what_is_no_module_is_told(lone_cli: Cli) -> None:
    (lone_cli.folder / "app").mkdir()
    assert "'none.py' does not exist; use" in lone_cli.complaint(USAGE, "worker", "none.py")
    assert "'app/' is a folder; use" in lone_cli.complaint(USAGE, "worker", "app/")
    assert "the path of a file, such as app/tasks.py" in lone_cli.complaint(USAGE, "worker", "nothing_here")


@pytest.mark.parametrize(
    ("text", "last", "frames"),
    [
        ("import not_there\n", "ModuleNotFoundError: No module named 'not_there'", 1),
        ("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError: division by zero", 2),
        ("def (\n", "SyntaxError: invalid syntax (mine.py, line 1)", 1),
        ("from pgjobq import job\njob(type='')(print)\n", "ConfigurationError: ", 1),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('k')\n", "KeyError: 'k'", 2),
    ],
)
def test_import_error_shows_the_users_frames_alone(lone_cli: Cli, text: str, last: str, frames: int) -> None:
    (lone_cli.folder / "mine.py").write_text(text)
    done = lone_cli.run("worker", "mine")
    assert done.returncode == NOT_DONE
    assert done.stderr.count("  File ") == frames, done.stderr
    assert done.stderr.count("mine.py") >= frames
    assert last in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("pgjobq: module: 'mine' cannot be imported: ")


def test_interrupt_at_the_start_is_one_line(lone_cli: Cli) -> None:
    (lone_cli.folder / "mine.py").write_text("import time\nopen('began', 'w').close()\ntime.sleep(30)\n")
    process = lone_cli.start("worker", "mine")
    until((lone_cli.folder / "began").exists, 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert lone_cli.log().strip() == "pgjobq: interrupted"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["enqueue", "t", "[1]"], "data: '[1]' is no JSON object; use one whose keys are the handler's arguments"),
        (["enqueue", "t", "{"], "data: "),
        (
            ["enqueue", "t", "--execute-at", "2030-01-01T09:00"],
            "--execute-at: '2030-01-01T09:00' has no offset from UTC",
        ),
        (["enqueue", "t", "--expires-at", "2030-01-01"], "as in 2030-01-01T00:00+01:00, or Z for UTC"),
        (
            ["cancel", "--queue", "q", "--created-before", "2030-01-01", "--yes"],
            "--created-before: '2030-01-01' has no",
        ),
        (["pause", "q", "--until", "2030-01-01T09:00"], "--until: '2030-01-01T09:00' has no offset from UTC"),
        (["pause", "q", "--until", "soon"], "--until: 'soon' is not a time"),
        (["enqueue", "t", "--max-retries", "-1"], "--max-retries: -1 is not allowed"),
        (["enqueue", "t", "--id", ""], "--id: has 0 characters"),
        (["worker", "handlers", "--keep", "7"], "--keep: '7' is not a time; use 7d"),
        (["worker", "handlers", "--concurrency", "0"], "--concurrency: 0 is not allowed"),
        (["worker", "handlers", "--processes", "0"], "--processes: 0 is not allowed"),
        (["worker", "handlers", "--grace", "-1"], "--grace: -1.0 is not allowed"),
        (["worker", "handlers", "--log-level", "loud"], "--log-level: 'loud' is not a level"),
        (["prune", "--days", "-1"], "--days: -1.0 is not allowed; use a number of days"),
    ],
)
def test_wrong_usage_is_said_in_the_shells_words(lone_cli: Cli, words: list[str], said: str) -> None:
    """They spoke of dicts, timedeltas and datetime.now(UTC), and exited with 1."""
    refused = lone_cli.complaint(USAGE, *words)
    assert said in refused
    assert "datetime" not in refused
    assert "dict" not in refused.replace("dictionary", "")


def test_wrong_value_found_by_the_storage_is_wrong_usage_too(cli: Cli) -> None:
    assert "--limit: -1 is not allowed" in cli.complaint(USAGE, "list", "--limit", "-1")
    assert "--delay: -1.0 is not allowed" in cli.complaint(USAGE, "retry", "a", "b", "--delay", "-1")


def on_terminal(cli: Cli, columns: int, *words: str) -> str:
    """The output of a command on a terminal of this width."""
    ours, theirs = pty.openpty()
    env = {**cli.environment, "COLUMNS": str(columns), "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pgjobq", *words], stdout=theirs, stderr=theirs, stdin=theirs, env=env, cwd=cli.folder
    )
    os.close(theirs)
    parts: list[bytes] = []
    while True:
        try:
            parts.append(os.read(ours, 65536))
        except OSError:  # the process has ended
            break
        if not parts[-1]:
            break
    os.close(ours)
    assert process.wait(30) == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_list_on_a_narrow_terminal_breaks_no_word(cli: Cli) -> None:
    later = cli.said("enqueue", "send_welcome_email", "--delay", "3600", "--queue", "mail").strip()
    cancelled = cli.said("enqueue", "t").strip()
    cli.said("cancel", cancelled, "--reason", "word " * 40)
    narrow = on_terminal(cli, 80, "list")
    lines = narrow.splitlines()
    assert max(map(len, lines)) <= 80
    assert later in lines
    assert "  pending, send_welcome_email, queue mail, attempts 0" in lines
    assert "execute_at" in narrow
    assert any(line.endswith("…") for line in lines)  # cut, and marked
    wide = on_terminal(cli, 250, "list")
    assert wide.splitlines()[0].split() == [
        "id", "type", "queue", "status", "attempts", "created_at", "execute_at", "error"
    ]  # fmt: skip


def test_errors_that_are_cut_are_marked(cli: Cli) -> None:
    ids = [cli.said("enqueue", "t").strip() for _ in range(3)]
    for job_id, reason in zip(ids, ("short", "x" * 61, "two\nlines"), strict=True):
        cli.said("cancel", job_id, "--reason", reason)
    listed = cli.said("list")
    assert f"{'x' * 59}…" in listed
    assert "x" * 60 not in listed
    assert "two …" in listed
    assert "short …" not in listed


def test_tables_are_cut_and_not_folded(cli: Cli) -> None:
    process = cli.start("worker", "handlers")
    until(lambda: bool(cli.json("stats")["workers"]), 30)
    cli.said("enqueue", "a_type_that_nobody_knows")
    shown = on_terminal(cli, 60, "stats")
    assert max(map(len, shown.splitlines())) <= 60
    assert "…" in shown
    process.terminate()
    process.wait(30)
