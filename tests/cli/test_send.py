"""`sansfilm send` to DCMTK's storescp: every file's own bytes, in its own transfer syntax."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian
from typer.testing import CliRunner

from cli.association import Association, Peer, PeerLost
from cli.files import Sendable, Unsendable, examine, find_files
from cli.main import app
from cli.sender import Sender, meaning
from instances.part10 import split
from tests.cli.test_association import accept, peer, read_data_set, receive, response
from tests.datasets import mr_dataset, part10, write_exam
from tests.waiting import until

runner = CliRunner()
#: One of each: explicit, implicit, big-endian, deflated, RLE, JPEG, JPEG 2000, JPEG-LS; lossy included.
REAL = (
    "CT_small.dcm",
    "rtplan.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "JPEG2000.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
)
dcmtk = pytest.mark.dcmtk


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[Peer]:
    """DCMTK's storescp, writing to `folder` what it got, bit by bit."""
    if shutil.which("storescp") is None:
        pytest.fail("storescp is needed: install dcmtk (make check does)")
    folder.mkdir(exist_ok=True)
    peer = Peer(called_ae="STORESCP", host="127.0.0.1", port=free_port())
    command = ["storescp", "--bit-preserving", "--output-directory", str(folder), *options, str(peer.port)]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"})
    try:
        until(lambda: _answers(peer), what="storescp")
        yield peer
    finally:
        process.kill()
        process.wait()


def _answers(peer: Peer) -> bool:
    try:
        association = Association(peer, [("1.2.840.10008.1.1", "1.2.840.10008.1.2")], timeout_s=5)
    except PeerLost:
        return False
    assert association.echo() == 0
    association.release()
    return True


def real_files() -> list[Path]:
    paths = [get_testdata_file(name) for name in REAL]
    return [Path(path) for path in paths if isinstance(path, str)]


def dataset_of(path: Path) -> bytes:
    """A file's data set; a deflated one of odd length with the zero byte that it needs on the wire (PS3.5 A.5)."""
    meta, dataset = split(path.read_bytes())
    return bytes(dataset) + bytes(len(dataset) % 2 if meta.transfer_syntax == DeflatedExplicitVRLittleEndian else 0)


@dcmtk
def test_real_files_arrive_bit_by_bit(tmp_path: Path) -> None:
    files = real_files()
    assert len(files) == len(REAL)
    with storescp(tmp_path / "got", "--accept-all", "--unique-filenames") as scp:
        result = runner.invoke(app, ["send", *map(str, files), "--to", str(scp), "-n", "2", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["statuses"] == {"0000": len(files)}
    sent = {dataset_of(path) for path in files}
    got = {dataset_of(path) for path in (tmp_path / "got").iterdir()}
    assert got == sent


@dcmtk
def test_many_files_over_parallel_associations(tmp_path: Path) -> None:
    write_exam(tmp_path / "exam", slices=40)
    with storescp(tmp_path / "got", "--fork") as scp:
        result = runner.invoke(app, ["send", str(tmp_path / "exam"), "--to", str(scp), "-n", "4"])
    assert result.exit_code == 0, result.output
    assert "0000H   success  40" in result.stdout
    assert f"40 of 40 files accepted by {scp}" in result.stdout
    assert len(list((tmp_path / "got").iterdir())) == 40


@dcmtk
def test_what_cannot_be_read_or_is_refused_is_listed_and_fails(tmp_path: Path) -> None:
    exam = write_exam(tmp_path / "exam", slices=2)
    (tmp_path / "exam" / "notes.txt").write_text("not DICOM")
    (tmp_path / "exam" / "empty.dcm").touch()
    deflated = tmp_path / "exam" / "deflated.dcm"
    deflated.write_bytes(part10(mr_dataset(9), "1.2.840.10008.1.2.1.99"))
    with storescp(tmp_path / "got") as scp:
        result = runner.invoke(
            app, ["send", str(tmp_path / "exam"), str(tmp_path / "gone"), "--to", str(scp), "--json"]
        )
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    problems = {Path(file["path"]).name: file["problem"] for file in said["files"]}
    assert problems == {
        **{path.name: "" for path in exam},
        "deflated.dcm": "the peer accepts no presentation context for it",
        "empty.dcm": "the file is empty",
        "notes.txt": problems["notes.txt"],
        "gone": "there is no such file",
    }
    assert problems["notes.txt"]
    assert (said["accepted"], said["failed"], said["unreadable"]) == (2, 1, 3)


def test_a_peer_that_is_away_fails_every_file_after_bounded_attempts(tmp_path: Path) -> None:
    write_exam(tmp_path / "exam", slices=3)
    to = f"NOBODY@127.0.0.1:{free_port()}"
    result = runner.invoke(app, ["send", str(tmp_path / "exam"), "--to", to, "--retries", "0"])
    assert result.exit_code == 1
    assert "not sent" in result.stdout
    assert result.stderr.count("cannot be reached: connection refused") == 3


def sendable(folder: Path) -> Sendable:
    file = examine(write_exam(folder, slices=1)[0])
    assert isinstance(file, Sendable)
    return file


def lost(connected: socket.socket) -> None:
    """A peer that dies before it answers."""
    receive(connected)
    connected.sendall(accept())
    read_data_set(connected)


def answered(connected: socket.socket) -> None:
    lost(connected)
    connected.sendall(response(0))
    receive(connected)


def test_a_file_without_an_answer_is_sent_again(tmp_path: Path) -> None:
    with peer(lost, answered) as address:
        summary = Sender(address, retries=1).send([sendable(tmp_path)])
    assert [outcome.status for outcome in summary.outcomes] == [0]


def test_attempts_are_bounded(tmp_path: Path) -> None:
    with peer(lost, lost) as address:
        summary = Sender(address, retries=1).send([sendable(tmp_path)])
    assert [(outcome.status, outcome.ok) for outcome in summary.outcomes] == [(None, False)]
    assert summary.outcomes[0].problem == "the peer closed the connection"


def test_more_than_128_contexts_need_more_than_one_association(tmp_path: Path) -> None:
    from cli.sender import _groups

    files = [
        Sendable(
            path=tmp_path,
            sop_class_uid=f"1.2.3.{number}",
            sop_instance_uid="1",
            transfer_syntax="1.2",
            dataset_offset=0,
            size_bytes=0,
        )
        for number in range(300)
    ]
    groups = _groups(files)
    assert [len(group.contexts) for group in groups] == [128, 128, 44]
    assert sum(len(group.jobs) for group in groups) == 300


def test_folders_are_walked_in_order_and_hidden_files_left_out(tmp_path: Path) -> None:
    write_exam(tmp_path / "b", slices=1)
    write_exam(tmp_path / "a" / "deep", slices=1)
    (tmp_path / "a" / ".DS_Store").write_text("x")
    assert [file.path.parent.name for file in find_files([tmp_path])] == ["deep", "b"]


def test_a_dicomdir_is_no_instance() -> None:
    path = get_testdata_file("DICOMDIR")
    assert isinstance(path, str)
    found = examine(Path(path))
    assert isinstance(found, Unsendable)
    assert "index of files" in found.reason


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0000, "success"),
        (0x0122, "SOP class not supported"),
        (0xA700, "refused: out of resources"),
        (0xA901, "data set does not match its SOP class"),
        (0xC123, "cannot understand"),
        (0xB123, "warning"),
        (0x0999, "failure"),
    ],
)
def test_statuses_in_words(status: int, words: str) -> None:
    assert meaning(status) == words
