"""Strangers at the doors of the whole product: each is answered as ingest and schemas.reasons say, or quarantined.

While each hostile socket is still open a C-ECHO succeeds; at the end an honest exam is filed and every process has kept
its peak of resident memory under the formula that its package states.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, HTJ2KLosslessRPCL

from ingest.dimse.command import COMMAND_SIZE_MAX
from ingest.dimse.wire import READ_AHEAD_BYTES
from ingest.stow_parts import BUFFERS_PER_REQUEST
from instances.htj2k import encode_frame
from instances.inflate import FREE_BYTES, RATIO_MAX
from runtime.settings import MIB
from tests.cli.test_up import House, _pid_of
from tests.datasets import MR_IMAGE_STORAGE, ROOT, dataset_bytes, mr_dataset, part10, write_exam
from tests.ingest.peers import EXPLICIT_LE, IMPLICIT_LE, VERIFICATION, Peer, associate_rq, pdu, pdv
from tests.ingest.test_stow import MULTIPART, multipart
from tests.instances.hostile import deflate_bomb, with_nested

DEFLATED = str(DeflatedExplicitVRLittleEndian)
MR = (1, MR_IMAGE_STORAGE, (EXPLICIT_LE,))
HTJ2K = str(HTJ2KLosslessRPCL)
SIDE = 60_000
MR_HTJ2K = (5, MR_IMAGE_STORAGE, (HTJ2K,))
MR_DEFLATED = (3, MR_IMAGE_STORAGE, (DEFLATED,))
ECHO = (1, VERIFICATION, (IMPLICIT_LE,))
UID_1 = f"{ROOT}.1.1.1"
PLACES = 12
OBJECT_MAX_BYTES, BATCH_MAX_BYTES, INLINE_MAX_BYTES = 16 * MIB, 8 * MIB, MIB
DECODE_MAX_BYTES = 256 * MIB
THREADS = 2
BOMB = deflate_bomb(256 * MIB)
SETTINGS = {
    "SANSFILM_ASSOCIATIONS_MAX": str(PLACES),
    "SANSFILM_ASSOCIATIONS_PER_CALLER_MAX": str(PLACES),
    "SANSFILM_OBJECT_MAX_BYTES": str(OBJECT_MAX_BYTES),
    "SANSFILM_INLINE_MAX_BYTES": str(INLINE_MAX_BYTES),
    "SANSFILM_BATCH_MAX_BYTES": str(BATCH_MAX_BYTES),
    "SANSFILM_DECODE_MEMORY_MAX_BYTES": str(DECODE_MAX_BYTES),
    "SANSFILM_WORKER_THREADS": str(THREADS),
    "SANSFILM_ARTIM_TIMEOUT_S": "60",
    "SANSFILM_IDLE_TIMEOUT_S": "3",
}
#: What an interpreter, its allocator and a thread's touched stack come to beside what the packages count.
SLACK_BYTES = 16 * MIB
#: ingest: instance buffer, read-ahead, command, A-ASSOCIATE-RQ; the places with and without association, and four more.
EDGE_BYTES = (2 * PLACES + 4) * (INLINE_MAX_BYTES + READ_AHEAD_BYTES + COMMAND_SIZE_MAX + 256 * 1024)
#: ingest, dicomweb: one STOW request after the other, decoded instances of two readers, heads in memory.
WEB_BYTES = BUFFERS_PER_REQUEST * INLINE_MAX_BYTES + 2 * DECODE_MAX_BYTES // 4 + 64 * MIB
#: workers, instances: two batches and their encoded forms; what each thread may inflate.
WORKER_BYTES = 4 * BATCH_MAX_BYTES + THREADS * max(FREE_BYTES, RATIO_MAX * len(BOMB))


@pytest.fixture
def besieged(house: House) -> Iterator[House]:
    """The product, warm, with its peaks of memory counted from here on."""
    with house.up(**SETTINGS) as process:
        write_exam(house.folder.parent / "warm", slices=4, study=90)
        assert _send(house, house.folder.parent / "warm") == 0
        httpx.get(f"http://127.0.0.1:{house.http_port}/dicom-web/studies/{ROOT}.90", timeout=20).raise_for_status()
        pids = {role: _pid_of(process, role) for role in ("edge", "worker", "web")}
        before = {role: _peak_bytes(pid, reset=True) for role, pid in pids.items()}
        yield house
        grown = {role: _peak_bytes(pid) - before[role] for role, pid in pids.items()}
        print("peak memory grown by", {role: f"{size / MIB:.1f} MiB" for role, size in grown.items()})
        assert {role: _pid_of(process, role) for role in pids} == pids, "a role died"
    allowed = {"edge": EDGE_BYTES, "worker": WORKER_BYTES, "web": WEB_BYTES}
    assert {role: size for role, size in grown.items() if size > allowed[role] + SLACK_BYTES} == {}


def test_strangers_at_every_door(besieged: House) -> None:
    house = besieged
    _claims_of_four_gigabytes(house)
    _fragments_that_never_end(house)
    _hostile_datasets(house)
    _half_open_sockets(house)
    _lying_lengths(house)
    write_exam(house.folder.parent / "honest", slices=3, study=91)
    assert _send(house, house.folder.parent / "honest") == 0
    said = json.loads(house.run("status", "--wait-drained", "--timeout-s", "60", "--json").stdout)
    assert said["lag_messages"] == dict.fromkeys(said["lag_messages"], 0)
    assert _quarantined(house) == {
        f"{ROOT}.1.1.1": "decode_limit",
        f"{ROOT}.1.1.2": "too_deep",
        f"{ROOT}.1.1.3": "unsafe_uid",
    }
    assert _warnings(house, f"{ROOT}.1.1.5") == "truncated"
    assert _warnings(house, f"{ROOT}.1.1.6") == "pixel_length_mismatch"
    _read_what_claims_much(house)
    assert not list(house.folder.rglob("*.part"))
    assert {path.name for path in house.folder.parent.iterdir()} == {"data", "warm", "honest"}
    verified = house.run("archive", "verify")
    assert verified.returncode == 0, verified.stdout


def _claims_of_four_gigabytes(house: House) -> None:
    for sent in (struct.pack(">BBI", 4, 0, 0xFFFFFFFF), struct.pack(">BBIIBB", 4, 0, 100, 0xFFFFFFFF, 1, 3)):
        with Peer(house.dicom_port) as peer:
            assert peer.associate(MR)
            peer.send(sent)
            _assert_echo(house)
            assert peer.read_pdu() == (7, bytes([0, 0, 2, 6]))
    with Peer(house.dicom_port) as peer:
        peer.send(struct.pack(">BBI", 1, 0, 0xFFFFFFFF))
        _assert_echo(house)
        assert peer.read_pdu() == (7, bytes([0, 0, 2, 6]))


def _fragments_that_never_end(house: House) -> None:
    fragment = pdu(4, pdv(1, 0, bytes(65536)))
    with Peer(house.dicom_port) as peer:
        assert peer.associate(MR)
        peer.send_store_command(MR_IMAGE_STORAGE, f"{ROOT}.1.1.50")
        peer.send(pdu(4, pdv(1, 0, dataset_bytes(mr_dataset(50, rows=8, columns=8))[:600])))
        with contextlib.suppress(ConnectionError):
            for _ in range(OBJECT_MAX_BYTES // 65536 + 20):
                peer.send(fragment)
        _assert_echo(house)
        assert peer.read_response().status == 0xA700
        assert peer.read_pdu()[0] == 7


def _hostile_datasets(house: House) -> None:
    """What the edge need not understand: acknowledged, then filed with a warning or quarantined by the worker."""
    deep = with_nested(1000).replace(UID_1.encode(), f"{ROOT}.1.1.2".encode())
    traversal = dataset_bytes(mr_dataset(3)).replace(
        _uid_element(0x000D, f"{ROOT}.1"), _uid_element(0x000D, "../../../../../../tmp/escaped")
    )
    plain = dataset_bytes(mr_dataset(5))
    claiming = dataset_bytes(mr_dataset(6, Rows=65535, Columns=65535))
    with Peer(house.dicom_port) as peer:
        assert peer.associate(MR, MR_DEFLATED, MR_HTJ2K)
        assert peer.store(MR_IMAGE_STORAGE, UID_1, BOMB, context_id=3).status == 0
        _assert_echo(house)
        sent = {"2": deep, "3": traversal, "5": plain[:-1000], "6": claiming}
        for number, dataset in sent.items():
            assert peer.store(MR_IMAGE_STORAGE, f"{ROOT}.1.1.{number}", dataset).status == 0, number
            _assert_echo(house)
        assert peer.store(MR_IMAGE_STORAGE, f"{ROOT}.1.1.7", _codestream_bomb(), context_id=5).status == 0
        assert peer.store(MR_IMAGE_STORAGE, f"{ROOT}.1.1.5", plain[:20]).status == 0xC000
        assert peer.store(MR_IMAGE_STORAGE, "../../../../tmp/escaped", plain).status == 0xA900


def _codestream_bomb() -> bytes:
    """An instance of 60,000 x 60,000 samples, by its own word and its codestream's (SIZ, ISO/IEC 15444-1 A.5.1)."""
    codestream = bytearray(encode_frame(np.zeros((64, 64), np.uint16)))
    codestream[8:16] = struct.pack(">II", SIDE, SIDE)
    dataset = mr_dataset(7, Rows=SIDE, Columns=SIDE)
    dataset.PixelData = encapsulate([bytes(codestream)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset_bytes(dataset, HTJ2K)


def _half_open_sockets(house: House) -> None:
    with contextlib.ExitStack() as open_sockets:
        for number in range(3 * PLACES):
            peer = open_sockets.enter_context(Peer(house.dicom_port))
            with contextlib.suppress(ConnectionError):
                peer.send(associate_rq(MR)[: 6 + number % 60])
        _assert_echo(house)
        taken = [open_sockets.enter_context(Peer(house.dicom_port)) for _ in range(PLACES)]
        assert all(peer.associate(MR) for peer in taken)
        late = open_sockets.enter_context(Peer(house.dicom_port))
        late.send(associate_rq(MR))
        assert late.read_pdu() == (3, bytes([0, 2, 3, 2]))
        _assert_echo(house)


def _lying_lengths(house: House) -> None:
    body = multipart([part10(mr_dataset(70, rows=600, columns=600))], closed=False)[:-1000]
    short = multipart([part10(mr_dataset(71))])
    for sent, declared_bytes in ((body, 10 * 2**40), (body, len(body) + 1), (short, len(short) // 2)):
        with _post(house, sent, declared_bytes) as client:
            _assert_echo(house)
            status = int(client.recv(64).split()[1])
            assert 400 <= status < 500, (declared_bytes, status)
    endless = multipart([part10(mr_dataset(72)) + bytes(OBJECT_MAX_BYTES)])
    with httpx.Client(base_url=f"http://127.0.0.1:{house.http_port}", timeout=30) as http:
        assert http.post("/dicom-web/studies", content=endless, headers={"content-type": MULTIPART}).status_code == 413


def _read_what_claims_much(house: House) -> None:
    series = f"/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.1"
    with httpx.Client(base_url=f"http://127.0.0.1:{house.http_port}", timeout=60) as http:
        for number in (6, 7):
            instance = f"{series}/instances/{ROOT}.1.1.{number}"
            answers = {path: http.get(f"{instance}{path}") for path in ("", "/metadata", "/frames/1")}
            assert answers[""].status_code == (200 if number == 6 else 406)
            assert answers["/metadata"].status_code == 200
            assert 400 <= answers["/frames/1"].status_code < 500 and answers["/frames/1"].json()["error"]


def _assert_echo(house: House) -> None:
    with Peer(house.dicom_port) as peer:
        assert peer.associate(ECHO), "the association was rejected"
        assert peer.echo().status == 0
        assert peer.release() == 6


def _post(house: House, body: bytes, declared_bytes: int) -> socket.socket:
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\n"
    client = socket.create_connection(("127.0.0.1", house.http_port), 20)
    client.sendall(f"{head}Content-Length: {declared_bytes}\r\n\r\n".encode() + body)
    return client


def _send(house: House, folder: Path) -> int:
    sent = house.run("send", str(folder), "--to", f"SANSFILM@127.0.0.1:{house.dicom_port}")
    return sent.returncode or house.run("status", "--wait-drained", "--timeout-s", "60").returncode


def _quarantined(house: House) -> Mapping[str, str]:
    entries = json.loads(house.run("quarantine", "ls", "--json").stdout)
    return {entry["attributes"]["ce_sopinstanceuid"]: entry["reason"] for entry in entries}


def _warnings(house: House, uid: str) -> str:
    [version] = json.loads(house.run("trace", uid, "--json").stdout)["versions"]
    return str(version["warnings"])


def _uid_element(number: int, uid: str) -> bytes:
    """A UID of group 0020 in Explicit VR LE."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HH2sH", 0x0020, number, b"UI", len(value)) + value


def _peak_bytes(pid: int, *, reset: bool = False) -> int:
    """A process's peak of resident memory (VmHWM); `reset` counts it anew from what is resident now."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
