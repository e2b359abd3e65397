"""next_tick: the same as cronsim, right when clocks are set, and bounded whatever it is given."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import psycopg
import pytest
from helpers.cron_cases import Cases, by_cronsim, follows_clock, is_next_minute

Connection = psycopg.Connection[Any]

CASES = int(os.environ.get("PGJOBQ_CRON_CASES", "2000"))
# The work of next_tick, without the check of the zone.
TICKS = """
select array_agg(cron_next(cron_fields(given.expression), given.zone, given.after) order by given.nth)
  from unnest(%s::text[], %s::text[], %s::timestamptz[]) with ordinality as given (expression, zone, after, nth)
"""


def ticks(conn: Connection, expression: str, zone: str, after: str, n: int) -> list[str]:
    """The next n ticks, as the clock of the zone shows them."""
    query = "select to_char(tick at time zone %s, 'MM-DD HH24:MI') from next_ticks(%s, %s, %s, %s) as tick"
    return [tick for (tick,) in conn.execute(query, [zone, expression, zone, after, n])]


def one(conn: Connection, expression: str, zone: str, after: str) -> datetime | None:
    row = conn.execute("select next_tick(%s, %s, %s)", [expression, zone, after]).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]  # a row of any type


def test_same_as_cronsim(conn: Connection) -> None:
    """Except where an expression that follows the clock meets a change of it, and cronsim skips what the clock shows."""
    cases = list(islice(Cases(int(os.environ.get("PGJOBQ_CRON_SEED", "1"))), CASES))
    found = conn.execute(TICKS, [list(given) for given in zip(*cases, strict=True)]).fetchone()
    assert found is not None
    differ = []
    for case, tick in zip(cases, found[0], strict=True):
        expected = by_cronsim(case)
        if tick != expected:
            assert tick is not None, (case, expected)
            assert expected is not None, (case, tick)
            assert follows_clock(case[0]), (case, tick, expected)
            assert is_next_minute(case, tick, expected), (case, tick, expected)
            differ.append(case)
    assert len(differ) <= CASES / 500


# The first tick after each is that of the clock, in both passes of what is repeated; a fixed time is due once.
PARIS = [
    ("30 2 * * *", "2026-03-28 12:00+01", ["03-29 03:00", "03-30 02:30"]),
    ("15,45 2 * * *", "2026-03-28 12:00+01", ["03-29 03:00", "03-30 02:15", "03-30 02:45"]),
    ("0 3 * * *", "2026-03-28 12:00+01", ["03-29 03:00", "03-30 03:00"]),
    ("0 2,3 * * *", "2026-03-28 12:00+01", ["03-29 03:00", "03-30 02:00"]),
    ("*/30 * * * *", "2026-03-29 01:10+01", ["03-29 01:30", "03-29 03:00", "03-29 03:30"]),
    ("30 * * * *", "2026-03-29 01:10+01", ["03-29 01:30", "03-29 03:30", "03-29 04:30"]),
    ("*/30 2 * * *", "2026-03-28 12:00+01", ["03-30 02:00", "03-30 02:30"]),
    ("30 2 * * *", "2026-10-24 12:00+02", ["10-25 02:30", "10-26 02:30"]),
    ("30 2 * * *", "2026-10-25 02:10+01", ["10-26 02:30"]),
    ("30 * * * *", "2026-10-25 02:10+02", ["10-25 02:30", "10-25 02:30", "10-25 03:30"]),
    (
        "*/30 2 * * *",
        "2026-10-25 01:10+02",
        ["10-25 02:00", "10-25 02:30", "10-25 02:00", "10-25 02:30", "10-26 02:00"],
    ),
    ("0 3 * * *", "2026-10-25 01:10+02", ["10-25 03:00", "10-26 03:00"]),
]
LORD_HOWE = [  # half an hour, at 02:00
    ("15 2 * * *", "2020-10-03 12:00+10:30", ["10-04 02:30", "10-05 02:15"]),
    ("*/15 * * * *", "2020-10-04 01:40+10:30", ["10-04 01:45", "10-04 02:30", "10-04 02:45", "10-04 03:00"]),
    ("* 3 * * *", "2020-10-04 01:40+10:30", ["10-04 03:00", "10-04 03:01"]),  # cronsim skips to 03:30
    ("45 1 * * *", "2020-04-04 12:00+11", ["04-05 01:45", "04-06 01:45"]),
    (
        "*/15 * * * *",
        "2020-04-05 01:20+11",
        ["04-05 01:30", "04-05 01:45", "04-05 01:30", "04-05 01:45", "04-05 02:00"],
    ),
]
TROLL = [  # two hours
    ("30 2 * * *", "2020-03-28 12:00+00", ["03-29 03:00", "03-30 02:30"]),
    ("15 1 * * *", "2020-03-28 12:00+00", ["03-29 03:00", "03-30 01:15"]),
    ("0 * * * *", "2020-03-29 00:10+00", ["03-29 03:00", "03-29 04:00"]),
    ("30 1,2 * * *", "2020-10-24 12:00+02", ["10-25 01:30", "10-25 02:30", "10-26 01:30"]),
    ("0 * * * *", "2020-10-25 00:10+02", ["10-25 01:00", "10-25 02:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"]),
]
SANTIAGO = [  # at midnight
    ("0 0 * * *", "2020-09-05 12:00-04", ["09-06 01:00", "09-07 00:00"]),
    ("@daily", "2020-09-05 12:00-04", ["09-06 01:00", "09-07 00:00"]),
    ("*/20 0 * * *", "2020-09-05 12:00-04", ["09-07 00:00", "09-07 00:20"]),
    ("30 23 * * *", "2020-04-04 12:00-03", ["04-04 23:30", "04-05 23:30"]),
    ("30 * * * *", "2020-04-04 23:10-03", ["04-04 23:30", "04-04 23:30", "04-05 00:30"]),
]
SET = [
    (zone, *row)
    for zone, table in [
        ("Europe/Paris", PARIS),
        ("Australia/Lord_Howe", LORD_HOWE),
        ("Antarctica/Troll", TROLL),
        ("America/Santiago", SANTIAGO),
    ]
    for row in table
]


@pytest.mark.parametrize("session_zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize(("zone", "expression", "after", "expected"), SET)
def test_when_the_clock_is_set(
    conn: Connection, session_zone: str, zone: str, expression: str, after: str, expected: list[str]
) -> None:
    conn.execute(f"set timezone = '{session_zone}'")
    assert ticks(conn, expression, zone, after, len(expected)) == expected


def test_fixed_time_is_due_once_in_a_year_of_days(conn: Connection) -> None:
    """Asked one after the other, the answers rise, and there is one for each day."""
    for zone in ("Europe/Paris", "America/Santiago", "Antarctica/Troll", "Australia/Lord_Howe"):
        rows = conn.execute("select next_ticks('10 2 * * *', %s, '2019-12-31 23:59Z', 365)", [zone]).fetchall()
        found = [tick for (tick,) in rows]
        assert found == sorted(set(found))
        assert (found[-1] - found[0]).days in {363, 364}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
        ("0 0 29 feb mon", datetime(2027, 2, 1, tzinfo=UTC)),  # either of them
        ("0 0 29 2 *,mon", datetime(2028, 2, 29, tzinfo=UTC)),
        ("0 0 */29 2 1", datetime(2027, 2, 1, tzinfo=UTC)),  # both of them
        ("0 0 * 2 MON#5", datetime(2044, 2, 29, tzinfo=UTC)),
        ("0 12 L * *", datetime(2026, 11, 30, 12, tzinfo=UTC)),
        ("0 12 LW 1 *", datetime(2027, 1, 29, 12, tzinfo=UTC)),
        ("0 12 * * 5L", datetime(2026, 11, 27, 12, tzinfo=UTC)),
        ("0 12 * * 1#2", datetime(2026, 12, 14, 12, tzinfo=UTC)),
        ("0 9 * * 7", datetime(2026, 11, 29, 9, tzinfo=UTC)),
        (" 0\t9 * * Mon-Fri ", datetime(2026, 11, 26, 9, tzinfo=UTC)),
        ("@hourly", datetime(2026, 11, 25, 10, tzinfo=UTC)),
        ("@Daily", datetime(2026, 11, 26, tzinfo=UTC)),
        ("@midnight", datetime(2026, 11, 26, tzinfo=UTC)),
        ("@weekly", datetime(2026, 11, 29, tzinfo=UTC)),
        ("@monthly", datetime(2026, 12, 1, tzinfo=UTC)),
        ("@yearly", datetime(2027, 1, 1, tzinfo=UTC)),
        ("@annually", datetime(2027, 1, 1, tzinfo=UTC)),
        ("0 0 30 2 *", None),
        ("0 0 31 2,4,6,9,11 */2", None),
    ],
)
def test_expression(conn: Connection, expression: str, expected: datetime | None) -> None:
    conn.execute("set statement_timeout = '5s'")
    assert one(conn, expression, "UTC", "2026-11-25 09:00:00Z") == expected
    assert one(conn, expression, "Europe/London", "2026-11-25 09:00:00Z") == expected


REFUSED = [
    "", " ", "* * * *", "0 9 * * * *", "* * * * * * *", "@reboot", "@often", "60 * * * *", "* 24 * * *", "* * 0 * *",
    "* * 32 * *", "* * * 13 *", "* * * * 8", "* * * 0 *", "-1 * * * *", "1- * * * *", "5-1 * * * *", "1-2-3 * * * *",
    "*/0 * * * *", "*/ * * * *", "*/2/2 * * * *", "/2 * * * *", "1,,2 * * * *", ", * * * *", "*-5 * * * *",
    "L * * * *", "* L * * *", "* * L-3 * *", "* * L/0 * *", "* * * L *", "* * * * L", "* * * * MONL", "* * * * 1#6",
    "* * * * 1#0", "* * 1#2 * *", "* * * JANU *", "* * * * *#2", "1.5 * * * *", "+1 * * * *", "?  * * * *", "** * * * *",
    "٣ * * * *", "１ * * * *", "² * * * *", "* * * * ²L", "0\u00a09 * * *", "0 9 * * 1\x0b", "0 9 * * 1; drop",
    "1-1000000000 * * * *", "1000000000 * * * *", "0-59/00 * * * *", "9" * 300 + " * * * *", "1," * 200 + "1 * * * *",
]  # fmt: skip


@pytest.mark.parametrize("expression", REFUSED)
def test_expression_is_refused_with_a_hint(conn: Connection, expression: str) -> None:
    conn.execute("set statement_timeout = '5s'")
    with pytest.raises(psycopg.Error, match=r"^expression: ") as error:
        one(conn, expression, "UTC", "2026-11-25 09:00Z")
    assert error.value.sqlstate == "JQ009"
    assert error.value.diag.message_hint
    assert len(error.value.diag.message_primary or "") < 120


def test_seconds_are_refused_by_name(conn: Connection) -> None:
    with pytest.raises(psycopg.Error, match=r"six fields.*\n.*HINT:.*Leave out the seconds"):
        one(conn, "0 0 9 * * *", "UTC", "2026-11-25 09:00Z")


def test_large_steps_cost_nothing(conn: Connection) -> None:
    conn.execute("set statement_timeout = '5s'")
    huge = "*/" + "9" * 240 + " * * * *"
    assert ticks(conn, huge, "UTC", "2026-11-25 09:30Z", 2) == ["11-25 10:00", "11-25 11:00"]


@pytest.mark.parametrize(
    "zone",
    ["FOO+3", "<+03>-3", "Europe/Paris3", "Etc/GMT+77", "CET", "EST", "MET", "cest", "+02", "02:00", "Mars/Base", "", "x" * 300,
     "EST5EDT,M3.2.0/2,M11.1.0", "../../etc/passwd", "Europe/Paris ", "posixrules", "localtime", "right/Europe/Paris", "posix/UTC", None],
)  # fmt: skip
def test_zone_is_refused(conn: Connection, zone: str | None) -> None:
    with pytest.raises(psycopg.Error, match=r"^time_zone: ") as error:
        conn.execute("select next_tick('0 9 * * *', %s)", [zone])
    assert error.value.sqlstate == "JQ009"
    assert "Europe/Berlin" in (error.value.diag.message_hint or "")


@pytest.mark.parametrize(
    "zone", ["UTC", "GMT", "Etc/GMT+5", "Asia/Kolkata", "America/Argentina/Buenos_Aires", "Japan", "EST5EDT"]
)
def test_zone_is_taken(conn: Connection, zone: str) -> None:
    assert one(conn, "0 9 * * *", zone, "2026-11-25 00:00Z")


@pytest.mark.parametrize("after", ["infinity", "-infinity", "0044-03-15 BC", None])
def test_moment_is_refused(conn: Connection, after: str | None) -> None:
    with pytest.raises(psycopg.Error, match=r"^after: ") as error:
        conn.execute("select next_tick('0 9 * * *', 'UTC', %s)", [after])
    assert error.value.sqlstate == "JQ009"


def test_ends_with_the_years_that_a_job_can_have(conn: Connection) -> None:
    assert conn.execute("select next_tick('0 0 29 2 *', 'UTC', '9998-01-01Z')").fetchone() == (None,)
    assert conn.execute("select next_tick('0 9 * * *', 'Asia/Tokyo', '9999-06-01Z')").fetchone() == (None,)


@pytest.mark.parametrize("n", [0, -1, 10001, None])
def test_number_of_ticks_is_bounded(conn: Connection, n: int | None) -> None:
    with pytest.raises(psycopg.Error, match=r"^n: "):
        conn.execute("select next_ticks('* * * * *', 'UTC', now(), %s)", [n])
