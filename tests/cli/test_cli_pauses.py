"""pgjobq pause and resume, and how stats and check report a pause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from helpers.cli import DONE, NOT_DONE, USAGE, Cli

from pgjobq import InvalidJob, JobQueue, Unsupported, open_storage


@pytest.mark.parametrize(("options", "kind"), [((), "queue"), (("--type",), "type")])
def test_pause_and_resume(cli: Cli, options: tuple[str, ...], kind: str) -> None:
    words = ("pause", "mail", *options, "--until", "30m", "--reason", "the provider is down")
    assert cli.said(*words) == "mail\n"
    (found,) = cli.json("stats")["pauses"]
    assert (found["kind"], found["name"], found["reason"]) == (kind, "mail", "the provider is down")
    left = datetime.fromisoformat(found["paused_until"]) - datetime.now(UTC)
    assert timedelta(minutes=25) < left <= timedelta(minutes=30)
    checked = cli.said("check")
    assert f"pauses: paused: {kind} mail by " in checked
    assert "the provider is down" in checked
    assert cli.said("resume", "mail", *options) == "mail\n"
    assert cli.complaint(NOT_DONE, "resume", "mail", *options) == f"pgjobq: {kind} 'mail' was not paused\n"


def test_check_ignores_jobs_of_a_paused_queue(cli: Cli, dsn: str) -> None:
    with JobQueue(dsn) as queue:
        queue.enqueue("t", queue="mail")
        assert cli.run("check").returncode == NOT_DONE
        queue.pause_queue("mail")
        assert cli.run("check").returncode == DONE
        assert "mail (paused)" in cli.said("stats")


@pytest.mark.parametrize(
    ("until", "says"),
    [("soon", "--until: 'soon' is not a time; use "), ("2001-01-01T00:00Z", "--until: "), ("2001-01-01", "--until: ")],
)
def test_invalid_until_is_refused(cli: Cli, until: str, says: str) -> None:
    assert cli.complaint(USAGE, "pause", "mail", "--until", until).startswith(f"pgjobq: {says}")
    assert cli.json("stats")["pauses"] == []


def test_queue_refuses_an_invalid_pause(dsn: str) -> None:
    with JobQueue(dsn) as queue:
        with pytest.raises(InvalidJob, match=r"^until: .* has no time zone"):
            queue.pause_queue("mail", until=datetime(2999, 1, 1))  # noqa: DTZ001  # the test needs a naive time
        with pytest.raises(InvalidJob, match=r"^type: '' is not the name of a type"):
            queue.pause_type("")
        assert queue.pauses() == []
        queue.pause_type("export")
        assert queue.resume_type("export")
        assert not queue.resume_type("export")


def test_other_storages_cannot_pause() -> None:
    with JobQueue(open_storage("sqlite:///:memory:")) as queue:
        with pytest.raises(Unsupported, match="SQLAlchemyStorage cannot pause queues and types"):
            queue.pause_queue("mail")
        assert queue.pauses() == []
