"""A real S3 server, started at most once for the tests that share it, and the ways to reach it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from archive.s3_access import S3Access
from region.seaweedfs import WORKER, Identity, SeaweedS3

#: Where the edge identity may put.
SITE = "site"


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedS3]:
    """The server of the whole session: whoever freezes or kills it uses one of their own."""
    with SeaweedS3(tmp_path_factory.mktemp("seaweed"), prefix=SITE) as server:
        yield server


def access_to(port: int, prefix: str = "", identity: Identity = WORKER, **given: object) -> S3Access:
    """The way to an archive of its own behind `port`; waits are short."""
    known: dict[str, object] = {
        "endpoint": f"http://127.0.0.1:{port}",
        "region": "us-east-1",
        "bucket": "archive",
        "prefix": prefix or f"test-{uuid4()}",
        "access_key_id": identity.access_key_id,
        "secret_access_key": identity.secret_access_key,
        "connect_timeout_s": 2.0,
        "read_timeout_s": 5.0,
        "request_timeout_s": 20.0,
        "retries_max": 0,
    }
    return S3Access(**{**known, **given})  # type: ignore[arg-type]
