"""The steps of an installation, as one script for any client and as sql/install.sql for psql.

Both are generated from the same steps, so they do the same. `make install-sql` writes sql/install.sql.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

PSQL_HEAD = r"""-- Installs or upgrades pgjobq with psql alone:
--   psql -d app -f sql/install.sql                    into the schema pgjobq
--   psql -d app -v schema=jobs -f sql/install.sql     into the schema jobs
--
-- It runs in one transaction, and it is safe to run again. It creates tables once and replaces functions. It runs
-- statements that lock a table only if something differs. `pgjobq migrate` does the same, and retries if a table is in
-- use. `make install-sql` writes this file, so do not edit it.
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
\if :{?schema}
\else
  \set schema pgjobq
\endif
"""
# Set everything that changes the meaning of the statements, or the way in which PostgreSQL prints a definition.
BEGIN = """begin isolation level read committed;
set local search_path = pg_catalog, pg_temp;
set local standard_conforming_strings = on;
set local quote_all_identifiers = off;
set local check_function_bodies = off;
set local statement_timeout = 0;
set local pgjobq.schema = {literal};
"""
# Replacing a view waits for every transaction that has read it. Therefore the script creates the wanted views as
# temporary views and compares them with the existing ones. It replaces a view if it may not create temporary views.
VIEWS_DIFFER = """exists (
  select from unnest('{{{names}}}'::text[]) as view (name),
       lateral (values (to_regclass(format('%I.%I', current_schema(), view.name)),
                        to_regclass('pg_temp.' || view.name))) as pair (found, wanted)
   where pair.wanted is null
      or pg_get_viewdef(pair.found) is distinct from pg_get_viewdef(pair.wanted)
      or obj_description(pair.found, 'pg_class') is distinct from obj_description(pair.wanted, 'pg_class'))"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Files of sql/, followed by SQL text. Both run only if the condition is true.

    In the text, {identifier} and {literal} are replaced with the name of the schema.
    """

    files: tuple[str, ...] = ()
    text: str = ""
    condition: str = ""


def sql_dir() -> Path:
    """Return the folder of the SQL files. A wheel has it inside the package, a source tree beside the package."""
    packaged = Path(str(files("pgjobq"))) / "sql"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "sql"


def migration_files() -> list[tuple[int, str]]:
    """Return the migrations in order, as pairs of version and file."""
    paths = sorted((sql_dir() / "migrations").glob("[0-9]*.sql"))
    return [(int(path.name.split("_")[0]), f"migrations/{path.name}") for path in paths]


def steps(*, public_function: bool = True) -> Iterator[Step]:
    """Yield the steps of the installation in order.

    The steps that lock the table jobs come as late as possible, because enqueues wait from there until the commit.
    """
    yield Step(text=BEGIN)
    yield Step(files=("server.sql", "schema.sql", "trust.sql"))
    yield Step(text="set local search_path = {identifier}, pg_temp;\n")
    first = "functions/new_job_id.sql"  # the default of a column of jobs calls it
    yield Step(files=("preflight.sql", "renamed.sql", first))
    for version, file in migration_files():
        at_it = f"exists (select from schema_version where version >= {version})"  # a number
        condition = "to_regclass('schema_version') is null" if version == 1 else f"not {at_it}"
        inserted = f"insert into schema_version (version) values ({version});\n"  # noqa: S608  # the same
        yield Step(files=(file,), text=inserted, condition=condition)
    yield Step(files=(*(file for file in _files("functions") if file != first), "ours.sql"))
    yield from _views()
    yield Step(files=("comments.sql", "comments_kept.sql", *["public.sql"] * public_function, "roles.sql"))
    yield Step(files=(*_files("triggers"), "stale.sql"))
    yield Step(text="commit;\n")


def _views() -> Iterator[Step]:
    views = _files("views")
    names = [Path(view).stem for view in views]
    yield Step(text="set local search_path = pg_temp, {identifier};\n")
    yield Step(files=views, condition="has_database_privilege(current_database(), 'temp')")
    yield Step(text="set local search_path = {identifier}, pg_temp;\n")
    yield Step(files=views, condition=VIEWS_DIFFER.format(names=",".join(names)))
    temporary = ", ".join(f"pg_temp.{name}" for name in names)
    yield Step(text=f"drop view {temporary};\n", condition=f"to_regclass('pg_temp.{names[0]}') is not null")


def _files(folder: str) -> tuple[str, ...]:
    """Return the SQL files of a folder and its subfolders, those of the folder itself first."""
    paths = [path.relative_to(sql_dir()) for path in (sql_dir() / folder).rglob("*.sql")]
    return tuple(str(path) for path in sorted(paths, key=lambda path: (len(path.parts), path)))


def one_script(schema: str, *, public_function: bool = True) -> str:
    """Return the installation as one SQL script. The caller must have checked the schema's name."""
    identifier = '"' + schema.replace('"', '""') + '"'
    literal = "'" + schema.replace("'", "''") + "'"
    parts = []
    for number, step in enumerate(steps(public_function=public_function)):
        texts = [(sql_dir() / file).read_text() for file in step.files]
        texts.append(step.text.replace("{identifier}", identifier).replace("{literal}", literal))
        body = "\n".join(text for text in texts if text)
        if step.condition:
            body = f"do $step_{number}$\nbegin\nif {step.condition} then\n{body}\nend if;\nend;\n$step_{number}$;\n"
        parts.append(body)
    return "\n".join(parts)


def psql_script() -> str:
    """Return the text of sql/install.sql, which includes the SQL files."""
    parts = [PSQL_HEAD]
    for step in steps():
        text = step.text.replace("{identifier}", ':"schema"').replace("{literal}", ":'schema'")
        body = "".join(f"\\ir {file}\n" for file in step.files) + text
        if step.condition:
            body = f"select {step.condition} as needed \\gset\n\\if :needed\n{body}\\endif\n"
        parts.append(body)
    return "\n".join(parts)


if __name__ == "__main__":
    (sql_dir() / "install.sql").write_text(psql_script())
