"""Real senders: DCMTK and pynetdicom."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage, Verification

from instances.part10 import split
from tests.datasets import mr_dataset, part10, write_exam
from tests.ingest.conftest import RunningEdge, StartEdge, large_file

DCMTK = pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK's storescu is not installed")


def run_dcmtk(*command: str) -> str:
    """Run one of DCMTK's tools; fails the test unless it succeeds."""
    done = subprocess.run(
        command, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@DCMTK
@pytest.mark.dcmtk
def test_echoscu(running_edge: RunningEdge) -> None:
    run_dcmtk("echoscu", "127.0.0.1", str(running_edge.port))


@DCMTK
@pytest.mark.dcmtk
@pytest.mark.parametrize("inline_max_bytes", [4096, 1 << 20])
def test_storescu_sends_an_exam(start_edge: StartEdge, tmp_path: Path, inline_max_bytes: int) -> None:
    edge = start_edge(inline_max_bytes=inline_max_bytes)
    files = write_exam(tmp_path / "exam", slices=5)
    run_dcmtk("storescu", "-xe", "-pdu", "131072", "127.0.0.1", str(edge.port), *map(str, files))
    messages = edge.received(5)
    # storescu writes the data set anew (group lengths, sequences), so elements are compared here, bytes elsewhere.
    kept = [
        large_file(edge.settings, message) if message.attributes.data_ref else bytes(message.value)
        for message in messages
    ]
    sent = {str(dcmread(file).SOPInstanceUID): dcmread(file) for file in files}
    for file in kept:
        (tmp_path / "kept.dcm").write_bytes(file)
        received = dcmread(tmp_path / "kept.dcm")
        assert received == sent.pop(str(received.SOPInstanceUID))
    assert not sent


@DCMTK
@pytest.mark.dcmtk
@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE.dcm", "image_dfl.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm"],
)
def test_dcmsend_may_keep_a_compressed_syntax(running_edge: RunningEdge, tmp_path: Path, name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    run_dcmtk("dcmsend", "--decompress-never", "127.0.0.1", str(running_edge.port), path)
    (message,) = running_edge.received()
    sent, _ = split(Path(path).read_bytes())
    (tmp_path / "kept.dcm").write_bytes(message.value)
    assert message.attributes.transfer_syntax == sent.transfer_syntax
    assert dcmread(tmp_path / "kept.dcm").PixelData == dcmread(path).PixelData


def test_pynetdicom_sends(running_edge: RunningEdge, tmp_path: Path) -> None:
    ae = AE("PYNETDICOM")
    ae.add_requested_context(Verification)
    ae.add_requested_context(MRImageStorage, ["1.2.840.10008.1.2.1"])
    (tmp_path / "sent.dcm").write_bytes(part10(mr_dataset(1)))
    association = ae.associate("127.0.0.1", running_edge.port)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    assert association.send_c_store(dcmread(tmp_path / "sent.dcm")).Status == 0
    association.release()
    (message,) = running_edge.received()
    assert message.attributes.calling_ae == "PYNETDICOM"
    assert bytes(split(message.value)[1]) == bytes(split((tmp_path / "sent.dcm").read_bytes())[1])


@DCMTK
@pytest.mark.dcmtk
def test_eight_senders_at_once_and_duplicates(running_edge: RunningEdge, tmp_path: Path) -> None:
    """The edge keeps every copy: what is the same is decided where instances are committed."""
    files = write_exam(tmp_path / "exam", slices=4)
    senders = [
        subprocess.Popen(
            ["storescu", "-xe", "127.0.0.1", str(running_edge.port), *map(str, files)],
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        for _ in range(8)
    ]
    assert [sender.wait(60) for sender in senders] == [0] * 8
    messages = running_edge.received(32)
    assert len({message.attributes.id for message in messages}) == 32
    assert len({message.attributes.association_id for message in messages}) == 8
    assert len({bytes(message.value) for message in messages}) == 4
