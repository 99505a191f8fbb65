"""What an object store answers, in the product's words. No message of a library or a server is passed on.

| what happened                                           | becomes |
|---------------------------------------------------------|---------|
| 404 for the object                                      | FileNotFoundError |
| 507, or a code of `_NO_SPACE`                           | OutOfSpace |
| 416                                                     | SegmentDamaged: the object ends before the range does |
| refused, dropped, timed out, 5xx, 404 for the bucket,   | Retryable: also what only an operator can mend, for     |
| credentials refused while running (`Denied`)            | nothing is lost while it waits                          |
| the last two, asked at the start (`S3Access.check`)     | Misconfigured |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError

from runtime.errors import OutOfSpace, Retryable
from segments.tar import SegmentDamaged

_NO_SPACE = frozenset({"QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "XMinioStorageFull"})
_NO_SPACE_STATUS, _RANGE_STATUS, _MISSING_STATUS, _DENIED_STATUS = 507, 416, 404, 403
_NO_BUCKET = "NoSuchBucket"
_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")


class Denied(Retryable):
    """These credentials may not do that. An operator has to give them the right; nothing is lost meanwhile."""


@contextmanager
def mapped_errors(operation: str) -> Iterator[None]:
    """Map what obstore raises; `AlreadyExistsError` is left to the caller.

    Raises:
        FileNotFoundError, OutOfSpace, SegmentDamaged, Retryable: see the table above.
    """
    try:
        yield
    except AlreadyExistsError:
        raise
    except (BaseError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise Retryable(f"cannot {operation}: {type(error).__name__}") from None
        missing = isinstance(error, FileNotFoundError)
        raise answered(operation, _MISSING_STATUS if missing else status_of(text), code_of(text)) from None


def answered(operation: str, status: int, code: str) -> Exception:
    """The error for a server's answer; status 0 if there was none."""
    if status == _MISSING_STATUS and code != _NO_BUCKET:
        return FileNotFoundError("there is no such segment")
    if status == _NO_SPACE_STATUS or code in _NO_SPACE:
        return OutOfSpace(f"cannot {operation}: the object store has no room")
    if status == _RANGE_STATUS:
        return SegmentDamaged("the segment is shorter than its index says")
    kind = Denied if status == _DENIED_STATUS else Retryable
    return kind(f"cannot {operation}: the object store {_says(status, code)}")


def status_of(text: str) -> int:
    """The HTTP status in a message of obstore's; 0 if there was no answer."""
    found = _STATUS.search(text)
    return int(found[1]) if found else 0


def code_of(text: str) -> str:
    """S3's own code in an answer's body, letters only."""
    found = _CODE.search(text)
    return found[1] if found else ""


def _says(status: int, code: str) -> str:
    if not status:
        return "does not answer"
    return f"answers {status} {code}".rstrip()
