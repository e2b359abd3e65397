"""The error of a job, as any database can keep it."""

from __future__ import annotations


def storable_error(text: str, max_bytes: int) -> str:
    """The text without what databases refuse, and shortened in the middle to so many bytes of UTF-8.

    A job whose error could not be stored could never be settled.
    """
    encoded = text.replace("\0", "\\0").encode(errors="backslashreplace")
    if len(encoded) > max_bytes:
        half = (max_bytes - 5) // 2
        encoded = encoded[:half] + b"\n...\n" + encoded[-half:]
    return encoded.decode(errors="ignore")
