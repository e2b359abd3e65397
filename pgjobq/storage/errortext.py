"""The error of a job, as any database can keep it."""

from __future__ import annotations

from pgjobq.explaining import printable, shortened


def storable_error(text: str, max_bytes: int) -> str:
    """The text without what databases refuse, and shortened in the middle to so many bytes of UTF-8.

    A job whose error could not be stored could never be settled.
    """
    # Shortened first: a huge text is not copied again and again.
    encoded = printable(shortened(text, max_bytes)).encode()
    if len(encoded) > max_bytes:
        half = (max_bytes - 5) // 2
        encoded = encoded[:half] + b"\n...\n" + encoded[-half:]
    return encoded.decode(errors="ignore")
