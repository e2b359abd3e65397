"""Import the user's modules for `pgjobq worker`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path

from pgjobq.cli.common import EXIT_ERROR, fail, refuse
from pgjobq.explaining import headline
from pgjobq.handlers import default_registry

_PGJOBQ = str(Path(__file__).resolve().parents[1]) + "/"
_IMPORTLIB = str(Path(importlib.__file__).parent) + "/"


def import_handlers(modules: tuple[str, ...]) -> None:
    """Import modules by name or by the path of their file. Exits if one cannot be imported or none has a handler."""
    sys.path.insert(0, str(Path.cwd()))
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
    if not len(default_registry):
        refuse(f"{', '.join(modules)}: no handlers found; decorate functions with @job from pgjobq")


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
