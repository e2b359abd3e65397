"""Errors as text: the text includes every cause, has a limited size, and no exception can break it."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from pgjobq import Fail
from pgjobq.explaining import MAX_ERROR, explain, headline, printable, safe_text, shortened
from pgjobq.storage.errortext import storable_error


def raised(error: Exception) -> Exception:
    """Return the error with a traceback."""
    try:
        raise error
    except Exception as caught:
        return caught


def caused(error: Exception, by: Exception) -> Exception:
    try:
        raise error from by
    except Exception as caught:
        return caught


def test_error_begins_and_ends_with_its_type_and_message() -> None:
    text = explain(raised(ValueError("no luck")))
    assert text.startswith("ValueError: no luck\nTraceback (most recent call last):\n")
    assert "in raised" in text
    assert text.endswith("\nValueError: no luck")
    assert explain(ValueError("never raised")) == "ValueError: never raised"
    assert explain(KeyError()) == "KeyError"


def test_notes_follow_their_message() -> None:
    error = ValueError("no luck")
    for number in range(20):
        error.add_note(f"note {number}")
    lines = explain(error).split("\n")
    assert lines[:6] == ["ValueError: no luck", *(f"note {number}" for number in range(5))]
    assert lines[6] == "... 10 notes left out ..."
    assert lines[-1] == "note 19"


def test_causes_and_contexts_are_shown_as_python_shows_them() -> None:
    def both() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise caused(ValueError("third"), raised(TypeError("second")))  # noqa: B904  # the test needs the context

    try:
        both()
    except ValueError as error:
        text, python = explain(error), "".join(traceback.format_exception(error))
    for part in ("TypeError: second", "direct cause of the following", "ValueError: third"):
        assert part in text
        assert part in python
    assert text.index("TypeError: second") < text.index("direct cause") < text.rindex("ValueError: third")


def test_suppressed_context_is_left_out() -> None:
    def both() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second") from None

    with pytest.raises(ValueError, match="second") as caught:
        both()
    assert "first" not in explain(caught.value)


def test_verdict_shows_its_cause_but_no_traceback_of_its_own() -> None:
    assert explain(raised(Fail("no such customer"))) == "Fail: no such customer"
    text = explain(caused(Fail("no such customer"), raised(KeyError(7))))
    assert text.startswith("Fail: no such customer\nTraceback")
    assert "KeyError: 7\n\nThe above exception was the direct cause" in text
    assert "in caused" not in text


def test_members_of_a_group_are_shown_with_their_notes_and_causes() -> None:
    noted = ValueError("noted")
    noted.add_note("look here")
    inner = ExceptionGroup("inner", [caused(OSError("disk"), raised(KeyError("root"))), noted])
    text = explain(raised(ExceptionGroup("outer", [raised(TypeError("one")), inner])))
    for part in ("outer (2 sub-exceptions)", "TypeError: one", "inner (2 sub", "OSError: disk", "root", "look here"):
        assert part in text


def chain(length: int) -> BaseException:
    error = ValueError("link 0")
    for number in range(1, length):
        outer = ValueError(f"link {number}")
        outer.__cause__ = error
        error = outer
    return error


def cycle() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    return one


def crowd() -> BaseException:
    error: BaseException = ValueError("innermost")
    for _ in range(6):
        error = BaseExceptionGroup("crowd", [error] * 10)
    return error


def deep_recursion() -> BaseException:
    def down(n: int) -> None:
        if n:
            up(n - 1)
        raise ValueError("at the bottom")

    def up(n: int) -> None:
        down(n)

    try:
        down(400)
    except ValueError as error:
        return error
    raise AssertionError


def test_long_chain_keeps_both_ends() -> None:
    text = explain(chain(5000))
    assert text.startswith("ValueError: link 4999\n")
    assert "ValueError: link 0\n" in text
    assert "4980 exceptions left out" in text
    assert text.endswith("ValueError: link 4999")


def test_deep_traceback_keeps_both_ends() -> None:
    text = explain(deep_recursion())
    assert "in deep_recursion" in text
    assert text.endswith("ValueError: at the bottom")
    assert "frames left out" in text


@pytest.mark.parametrize("make", [cycle, crowd, lambda: ValueError("x" * 50_000_000), lambda: chain(50_000)])
def test_text_of_a_huge_error_is_limited(make: Any) -> None:
    assert 10 < len(explain(make())) <= MAX_ERROR


def test_characters_that_databases_refuse_are_escaped_everywhere() -> None:
    error = caused(ValueError("a\0b"), raised(KeyError("\udcff")))
    error.add_note("\ud800")
    text = explain(error)
    assert text.encode()
    assert "\0" not in text
    for part in ("a\\0b", "\\udcff", "\\ud800"):
        assert part in text


class Loud(str):
    """A str whose methods raise."""

    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError

    replace = encode = __getitem__ = __format__ = __str__ = __len__  # type: ignore[assignment]


class SaysLoud(Exception):
    def __str__(self) -> str:
        return Loud("loud")


class NoCause(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]  # the test needs an attribute that raises
        raise RuntimeError


class NoNotes(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError


@pytest.mark.parametrize(("kind", "text"), [(SaysLoud, "SaysLoud: loud"), (NoCause, "NoCause"), (NoNotes, "NoNotes")])
def test_exception_whose_attributes_raise_is_still_explained(kind: type[Exception], text: str) -> None:
    assert text in explain(raised(kind()))
    assert text in headline(kind())


def test_headline_is_type_and_message() -> None:
    assert headline(ValueError("no luck")) == "ValueError: no luck"
    assert headline(Fail()) == "Fail: the handler gave no reason"


def test_texts_are_shortened_in_the_middle() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("a" * 50 + "b" * 50, 15) == "aaaaa\n...\nbbbbb"
    assert len(safe_text("\udcff" * 1000, 100)) <= 100
    assert printable("plain") == "plain"


@pytest.mark.parametrize("text", ["plain", "é" * 1000, "\0" * 1000, "\udcff" * 1000, "x" * 10_000_000])
def test_storable_error_respects_the_limit_in_bytes(text: str) -> None:
    stored = storable_error(text, 500)
    assert len(stored.encode()) <= 500
    assert stored == text or "..." in stored
