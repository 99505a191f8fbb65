"""Signed requests of the few kinds that obstore does not make: multipart uploads whose first part is sent last.

AWS Signature Version 4 in the Authorization header. The body is bound by its MD5 (RFC 1864), which is signed with the
other headers and which every server compares with what it got; hence ``UNSIGNED-PAYLOAD``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlsplit

from archive.s3_access import S3Access
from archive.s3_errors import answered, code_of
from archive.segment_store import Buffer
from runtime.clock import SystemClock
from runtime.errors import Retryable

_SERVICE, _ALGORITHM, _UNSIGNED = "s3", "AWS4-HMAC-SHA256", "UNSIGNED-PAYLOAD"
_BACKOFF_S, _BACKOFF_MAX_S = 0.1, 2.0
_ANSWER_BYTES_MAX: Final = 1024 * 1024
_SERVER_ERRORS = range(500, 600)
_NO_SPACE_STATUS = 507


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said."""

    status: int
    e_tag: str
    body: str

    @property
    def code(self) -> str:
        """S3's code of an error, which also a 200 may hold."""
        return code_of(self.body)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300 and not self.code


class NoAnswer(Retryable):
    """The request was sent, or partly, and nobody knows what became of it."""


class SignedRequests:
    """One connection, opened when it is needed. Not thread-safe; the caller closes it."""

    def __init__(self, access: S3Access) -> None:
        self._access = access
        self._clock = SystemClock()  # a signature holds the time of day, and servers compare it with theirs
        self._host = urlsplit(access.endpoint).netloc
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self,
        method: str,
        name: str,
        query: Mapping[str, str],
        body: Buffer = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request about the object `name`, again after a failure; it must bear being repeated.

        Raises:
            NoAnswer: the last attempt had no answer.
        """
        attempts = self._access.retries_max + 2  # one for a connection that was closed while it was idle
        for attempt in range(attempts):
            if attempt > 1:
                time.sleep(min(_BACKOFF_MAX_S, _BACKOFF_S * 2**attempt))
            try:
                answer = self._send_once(method, name, query, body, headers or {})
            except (OSError, http.client.HTTPException) as error:
                self.close()
                cause = type(error).__name__
                continue
            if answer.status in _SERVER_ERRORS and answer.status != _NO_SPACE_STATUS and attempt < attempts - 1:
                continue
            return answer
        raise NoAnswer(f"the object store does not answer: {cause}")

    def require(self, operation: str, answer: Answer) -> Answer:
        """`answer`, if it is a success.

        Raises:
            OutOfSpace, Retryable: it is not.
        """
        if answer.is_success:
            return answer
        error = answered(operation, answer.status, answer.code)
        raise error if isinstance(error, Retryable) else Retryable(f"cannot {operation}: {answer.status} {answer.code}")

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send_once(
        self, method: str, name: str, query: Mapping[str, str], body: Buffer, headers: Mapping[str, str]
    ) -> Answer:
        path = quote(f"/{self._access.bucket}/{self._access.object_name(name)}", safe="/-_.~")
        asked = "&".join(
            f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in sorted(query.items())
        )
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        given = {**headers, "host": self._host, "content-md5": md5, "x-amz-content-sha256": _UNSIGNED}
        signed = signed_headers(self._access, method, path, asked, given, self._clock.now())
        connection = self._connected()
        connection.request(method, f"{path}?{asked}", body=body or None, headers=signed)
        response = connection.getresponse()
        text = response.read(_ANSWER_BYTES_MAX).decode("utf-8", "replace")
        return Answer(status=response.status, e_tag=response.headers.get("etag", ""), body=text)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            timeout_s = self._access.connect_timeout_s
            if self._access.endpoint.startswith("https://"):
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(self._host, timeout=timeout_s, context=context)
            else:
                self._connection = http.client.HTTPConnection(self._host, timeout=timeout_s)
            self._connection.connect()
            self._connection.sock.settimeout(self._access.read_timeout_s)
        return self._connection


def signed_headers(
    access: S3Access, method: str, path: str, query: str, headers: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """`headers` (lower-case names) with the time and the signature; path and query are encoded and sorted already."""
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    given = {**headers, "x-amz-date": moment}
    names = ";".join(sorted(given))
    lines = [f"{name}:{given[name].strip()}" for name in sorted(given)]
    request = "\n".join([method, path, query, *lines, "", names, given["x-amz-content-sha256"]])
    scope = f"{moment[:8]}/{access.region}/{_SERVICE}/aws4_request"
    text = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{access.secret_access_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    credential = f"{access.access_key_id}/{scope}"
    return {
        **given,
        "authorization": f"{_ALGORITHM} Credential={credential},SignedHeaders={names},Signature={key.hex()}",
    }
