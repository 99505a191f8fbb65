from collections.abc import Iterator

import pytest

from region.seaweedfs import SeaweedS3
from tests.keeper.site import Site
from tests.region.s3 import access_to


@pytest.fixture
def site(seaweed: SeaweedS3, catalog_url: str) -> Iterator[Site]:
    """An empty archive in S3, its catalog in PostgreSQL."""
    opened = Site(access_to(seaweed.port), catalog_url)
    yield opened
    opened.close()
