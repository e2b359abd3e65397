"""Import the user's modules for `pgjobq worker`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgjobq.cli.common import EXIT_ERROR, fail, refuse
from pgjobq.errors import PgjobqError
from pgjobq.explaining import headline
from pgjobq.handlers import default_registry

_PGJOBQ = str(Path(__file__).resolve().parents[1]) + "/"
_IMPORTLIB = str(Path(importlib.__file__).parent) + "/"


def import_handlers(modules: tuple[str, ...]) -> None:
    """Import modules by name or by the path of their file. Exits if one cannot be imported or none has a handler.

    In a Django project, set up Django first, and import the modules of its apps too.
    """
    sys.path.insert(0, str(Path.cwd()))
    project = _django_project()
    if project is not None:
        project.set_up()
        _run("the apps of the Django project", project.import_handlers)
    for name in modules:
        try:
            if name.endswith(".py") or "/" in name:
                _import_file(name)
            else:
                importlib.import_module(name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
                refuse(
                    f"module: {error.name!r} is neither here nor installed; use a dotted name, such as app.tasks,"
                    " or the path of a file, such as app/tasks.py"
                )
            _exit_after(name, error)
    if not modules and project is None:
        refuse("MODULE: missing; name the modules with handlers, such as app.tasks")
    if not len(default_registry):
        named = ", ".join(modules) or "the modules `jobs` and `tasks` of the installed apps"
        refuse(f"{named}: no handlers found; decorate functions with @job from pgjobq")
    if project is not None:
        project.keep_connections_clean(default_registry)


def _django_project() -> Any:
    """Return the module for workers in Django projects; None if this is no such project.

    It is imported by its name, because it builds on the command line, and because most programs do not have Django.
    """
    if not os.environ.get("DJANGO_SETTINGS_MODULE") or importlib.util.find_spec("django") is None:
        return None
    return importlib.import_module("pgjobq.django.working")


def _run(name: str, imports: Callable[[], None]) -> None:
    try:
        imports()
    except PgjobqError:
        raise
    except Exception as error:
        _exit_after(name, error)


def _import_file(name: str) -> None:
    """Import a file, as the module app.tasks if its path from here is app/tasks.py."""
    path = Path(name).resolve()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        refuse(f"module: {name!r} {what}; use a dotted name, such as app.tasks, or the path of a file")
    here = Path.cwd().resolve()
    parts = path.relative_to(here).with_suffix("").parts if path.is_relative_to(here) else ()
    if path.suffix == ".py" and parts and all(part.isidentifier() for part in parts):
        importlib.import_module(".".join(parts))
        return
    # Elsewhere, its neighbours can be imported by their names, as when Python runs the file.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        refuse(f"module: {name!r} is not a Python file; its name must end in .py")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _exit_after(name: str, error: Exception) -> None:
    """Print the user's part of the traceback, then the error in one line, and exit."""
    told: traceback.TracebackException | None = traceback.TracebackException.from_exception(error)
    shown = told
    while told is not None:
        told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if _is_users(frame.filename)])
        told = told.__cause__ or told.__context__
    if shown is not None and (shown.stack or isinstance(error, SyntaxError)):
        sys.stderr.write("".join(shown.format()))
    fail(f"module: {name!r} cannot be imported: {headline(error).splitlines()[0]}")
    sys.exit(EXIT_ERROR)


def _is_users(file: str) -> bool:
    return not file.startswith(("<frozen importlib", "<string>", _PGJOBQ, _IMPORTLIB))
