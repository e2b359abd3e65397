"""Turn errors into text for jobs, log lines and databases.

An exception may be of a user's class: its str() may raise, be very long, or contain characters that databases refuse.
The functions here never raise.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from itertools import islice
from types import FrameType, TracebackType
from typing import Any

from pgjobq.errors import BadArguments, Fail, JobTimeout, ProcessDied, Retry, Snooze, UnknownJobType

MAX_ERROR = 20_000  # the most characters of an error; the limits of messages and lines are in characters too
MAX_MESSAGE = 5_000  # of the message of the error
MAX_NESTED = 1_000  # of the message of a cause or a group member, and of a line of a traceback
MAX_FRAMES = 40  # frames of one traceback
MAX_CHAIN = 20  # causes and contexts of one exception
MAX_NOTES = 10  # notes of one exception
MAX_MEMBERS = 10  # members of one group
MAX_DETAILED = 100  # exceptions of one error that are shown with traceback and members
MAX_WALK = 100_000  # exceptions of one chain that are read

VERDICTS = (Retry, Snooze, Fail, BadArguments, UnknownJobType, JobTimeout, ProcessDied)  # no traceback is shown
CAUSED = "The above exception was the direct cause of the following exception:"
MEANWHILE = "During handling of the above exception, another exception occurred:"


def explain(error: BaseException) -> str:
    """Return type, message, notes and traceback, with causes, contexts and the members of groups.

    A very long text is shortened in the middle. If the exception breaks this function, returns only type and message.
    """
    try:
        head = _headline(error, MAX_MESSAGE)
        body = "\n".join(_chain(error, MAX_MESSAGE, iter(range(MAX_DETAILED))))
        return shortened(head if body == head else f"{head}\n{body}", MAX_ERROR)
    except BaseException:
        return headline(error)


def headline(error: BaseException) -> str:
    """Return type and message."""
    return f"{_type_of(error)}: {text}" if (text := safe_text(error)) else _type_of(error)


def safe_text(value: object, most: int = MAX_MESSAGE) -> str:
    """Return str(value) without characters that databases refuse, shortened to `most` characters."""
    try:
        text = str.__str__(str(value))  # str() may return an instance of a subclass of str
    except BaseException as broken:
        text = f"<{class_name(value)} that cannot be printed: {class_name(broken)}>"
    return shortened(printable(shortened(text, most)), most)


def class_name(value: object) -> str:
    """Return the name of its class, even if a metaclass overrides __name__."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def printable(text: str) -> str:
    """Return the text with NUL characters and surrogates replaced by escapes."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def shortened(text: str, most: int) -> str:
    """Return the text, without its middle if it has more than `most` characters."""
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]}\n...\n{text[-half:]}"


def _type_of(error: BaseException) -> str:
    kind = type(error)
    try:
        if isinstance(error, VERDICTS) or kind.__module__ in {"builtins", "__main__"}:
            return str(kind.__qualname__)
        return f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:
        return class_name(error)


def _headline(error: BaseException, most: int) -> str:
    text = safe_text(error, most)
    notes = getattr(error, "__notes__", None)
    kept = _ends([*notes], MAX_NOTES, "notes") if isinstance(notes, list | tuple) else []
    return "\n".join([f"{_type_of(error)}: {text}" if text else _type_of(error), *(safe_text(n, most) for n in kept)])


def _chain(error: BaseException, most: int, budget: Iterator[int]) -> Iterator[str]:
    """Yield an exception and, before it, its causes and contexts, as Python prints them."""
    links = _ends(list(islice(_links(error), MAX_WALK)), MAX_CHAIN, "exceptions")
    for number, link in enumerate(reversed(links)):
        if isinstance(link, str):
            yield f"{link}\n"
            continue
        found, because = link
        detailed = next(budget, None) is not None
        if detailed and not isinstance(found, VERDICTS) and (frames := _frames(found.__traceback__)):
            yield "Traceback (most recent call last):\n" + frames.rstrip("\n")
        yield _headline(found, most if found is error else MAX_NESTED)
        if detailed and isinstance(found, BaseExceptionGroup):
            yield from _members(found, budget)
        if number < len(links) - 1:
            yield f"\n{because}\n"


def _links(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """Yield an exception, its cause or context, and so on, each with the line to print below it. Ends at a cycle."""
    seen: set[int] = set()
    found: BaseException | None = error
    because = ""
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found, because
        cause, context = found.__cause__, found.__context__
        because = MEANWHILE if cause is None else CAUSED
        found = cause if cause is not None else None if found.__suppress_context__ else context


def _members(group: BaseExceptionGroup[Any], budget: Iterator[int]) -> Iterator[str]:
    for member in _ends(list(enumerate(group.exceptions, 1)), MAX_MEMBERS, "members"):
        parts = [member] if isinstance(member, str) else [f"{member[0]}:", *_chain(member[1], MAX_NESTED, budget)]
        yield "\n".join(f"  {line}".rstrip() for line in "\n".join(parts).splitlines())


def _frames(trace: TracebackType | None) -> str:
    """Format the frames of a traceback without the worker's own frames at its start."""
    frames: list[tuple[FrameType, int]] = list(traceback.walk_tb(trace))
    while frames and str(frames[0][0].f_globals.get("__name__")).startswith("pgjobq.worker."):
        del frames[0]
    parts = _ends(frames, MAX_FRAMES, "frames")
    gap = next((index for index, part in enumerate(parts) if isinstance(part, str)), len(parts))
    pieces = [traceback.StackSummary.extract(iter(some)).format() for some in (parts[:gap], parts[gap + 1 :])]
    lines = [*pieces[0], *(f"  {part}\n" for part in parts[gap : gap + 1]), *pieces[1]]
    return "".join(shortened(line, MAX_NESTED) for line in map(printable, lines))


def _ends(items: list[Any], most: int, what: str) -> list[Any]:
    """Return at most `most` items. If there are more, a line in the middle says how many are left out."""
    if len(items) <= most:
        return items
    half = most // 2
    return [*items[:half], f"... {len(items) - 2 * half} {what} left out ...", *items[-half:]]
