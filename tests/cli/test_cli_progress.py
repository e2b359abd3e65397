"""Progress on the command line."""

from __future__ import annotations

from helpers.cli import Cli

from pgjobq import JobQueue
from pgjobq.reports import Report


def test_show_and_list_print_progress(cli: Cli, queue: JobQueue) -> None:
    quiet, job_id = queue.enqueue("x"), queue.enqueue("x")
    assert "progress" not in cli.said("show", job_id)
    claimed = {str(job.id): job for job in queue.storage.dequeue_many(2)}
    assert "progress" not in cli.said("list")
    report = Report.checked(0.4, "page 4\nof 10", {"page": 4})
    queue.storage.save_progress([(claimed[job_id], report)])
    (line,) = [line for line in cli.said("show", job_id).splitlines() if line.startswith("progress")]
    assert r'progress     40% page 4\nof 10 {"page": 4} (' in line
    listed = cli.said("list")
    assert [line.rstrip().endswith(r"40% page 4\nof 10") for line in listed.splitlines()[1:]] == [
        line.startswith(job_id) for line in listed.splitlines()[1:]
    ]
    shown = cli.json("show", job_id)["progress"]
    assert shown.pop("updated_at")
    assert shown == {"fraction": 0.4, "message": "page 4\nof 10", "meta": {"page": 4}}
    assert cli.json("show", quiet)["progress"] is None
    assert {job["id"]: job.get("progress", {}).get("fraction") for job in cli.json("list")} == {
        quiet: None,
        job_id: 0.4,
    }
