"""A region that cannot be started leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from region import kafka
from region.cluster import Cluster, Shape
from region.kafka import NotStarted


def test_a_region_without_a_broker_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = tmp_path / "folders"
    folders.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    monkeypatch.setattr(kafka, "JARS", tmp_path / "no-jars")
    with pytest.raises(NotStarted), Cluster(tmp_path / "region", Shape(brokers=1)):
        pass
    assert list(folders.iterdir()) == []
