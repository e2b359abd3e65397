"""Convert the error of a job to text that any database can store."""

from __future__ import annotations

from pgjobq.explaining import printable, shortened


def storable_error(text: str, max_bytes: int) -> str:
    """Replace characters that databases refuse, and cut out the middle of a text of more than max_bytes in UTF-8.

    If the error could not be stored, the job could never be settled.
    """
    # Shorten first, so that a huge text is not copied several times.
    encoded = printable(shortened(text, max_bytes)).encode()
    if len(encoded) > max_bytes:
        half = (max_bytes - 5) // 2
        encoded = encoded[:half] + b"\n...\n" + encoded[-half:]
    return encoded.decode(errors="ignore")
