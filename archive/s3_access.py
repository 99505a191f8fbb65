"""The way to one archive in an object store: where it is, with which credentials, how long to wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from archive.s3_errors import answered, code_of, status_of
from runtime.addresses import is_loopback
from runtime.errors import Misconfigured
from runtime.settings import CommonSettings

#: Answers to a first request that waiting does not mend, and what an operator is told.
_WRONG = {
    "InvalidAccessKeyId": "the object store does not know the access key: set SANSFILM_S3_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the object store refuses the secret key: set SANSFILM_S3_SECRET_ACCESS_KEY",
    "AuthorizationHeaderMalformed": "the object store is in another region: set SANSFILM_S3_REGION",
    "RequestTimeTooSkewed": "this machine's clock and the object store's differ: set the time",
    "NoSuchBucket": "there is no such bucket: create it, or set SANSFILM_STORE_URL",
}
_DENIED = "these credentials may not read the archive's bucket: give them the right, or set others"
_FORBIDDEN_STATUS = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """All that is needed to reach the archive."""

    endpoint: str
    region: str
    bucket: str
    #: The archive's root in the bucket, without slashes at its ends; may be empty.
    prefix: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    connect_timeout_s: float
    #: Longest silence while an answer is read, the wait for its first byte included.
    read_timeout_s: float
    #: Longest time that one PUT or one ranged GET may take.
    request_timeout_s: float
    #: Requests repeated after a refused connection, a dropped answer to a GET or a 5xx.
    retries_max: int

    def reading(self) -> S3Store:
        """For requests without a body: also silence ends them."""
        return self._store(read_timeout=timedelta(seconds=self.read_timeout_s))

    def writing(self) -> S3Store:
        """For PUTs. The client counts silence from the begin of a request, so that only its whole time is bounded.

        Each PUT carries the SHA-256 of its body (``x-amz-checksum-sha256``), which the server compares before it
        keeps anything. (The one in the signature is not compared by every server.)
        """
        return self._store(checksum_algorithm="SHA256")

    def object_name(self, name: str) -> str:
        """A name under the archive's root as the server has it."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def check(self, *, may_only_put: bool = False) -> None:
        """Ask once, at the start, whether there is such a bucket and whether it takes these credentials.

        `may_only_put`: being refused to read is no error.

        Raises:
            Misconfigured: one sentence for the operator.
            Retryable: the store is away.
        """
        try:
            obstore.get(self.reading(), "README.txt")  # not HEAD, whose refusals come without a reason
        except (BaseError, FileNotFoundError) as error:
            text = str(error)
            status, code = status_of(text), code_of(text)
            if code in _WRONG:
                raise Misconfigured(_WRONG[code]) from None
            if status == _FORBIDDEN_STATUS and not may_only_put:
                raise Misconfigured(_DENIED) from None
            if not isinstance(error, FileNotFoundError) and status != _FORBIDDEN_STATUS:
                raise answered("ask for the archive", status, code) from None

    def _store(self, *, read_timeout: timedelta | None = None, checksum_algorithm: str = "") -> S3Store:
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            config={
                "endpoint": self.endpoint,
                "region": self.region,
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key,
                "virtual_hosted_style_request": False,
                "disable_bulk_delete": True,
                **({"checksum_algorithm": checksum_algorithm} if checksum_algorithm else {}),
            },
            client_options={
                "allow_http": self.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=self.connect_timeout_s),
                "timeout": timedelta(seconds=self.request_timeout_s),
                **({"read_timeout": read_timeout} if read_timeout else {}),
            },
            retry_config={
                "max_retries": self.retries_max,
                "retry_timeout": timedelta(seconds=self.read_timeout_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
        )


def access_from(settings: CommonSettings) -> S3Access:
    """The access that the settings name.

    Raises:
        Misconfigured: a setting is missing or cannot be meant.
    """
    url = urlsplit(settings.store_url)
    endpoint = urlsplit(settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com")
    if url.scheme != "s3" or not url.netloc or url.query or url.fragment:
        raise Misconfigured("SANSFILM_STORE_URL must be s3://bucket/prefix")
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or endpoint.path.strip("/"):
        raise Misconfigured("SANSFILM_S3_ENDPOINT must be https://host:port")
    if endpoint.scheme == "http" and not (settings.insecure_demo or is_loopback(endpoint.hostname)):
        raise Misconfigured("SANSFILM_S3_ENDPOINT must be https:// unless it is on this machine")
    secret = settings.s3_secret_access_key.get_secret_value()
    if not (settings.s3_access_key_id and secret):
        raise Misconfigured("an s3:// store needs SANSFILM_S3_ACCESS_KEY_ID and SANSFILM_S3_SECRET_ACCESS_KEY")
    return S3Access(
        endpoint=f"{endpoint.scheme}://{endpoint.netloc}",
        region=settings.s3_region,
        bucket=url.netloc,
        prefix=url.path.strip("/"),
        access_key_id=settings.s3_access_key_id,
        secret_access_key=secret,
        connect_timeout_s=settings.s3_connect_timeout_s,
        read_timeout_s=settings.s3_read_timeout_s,
        request_timeout_s=settings.s3_request_timeout_s,
        retries_max=settings.s3_retries_max,
    )
