"""STOW-RS through an ASGI client, on the real log."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from broker.local import LocalPublisher
from ingest.admission import DiskRule
from ingest.arrival import InstanceBuffer
from ingest.intake import Intake
from ingest.stow import stow_routes
from ingest.stow_parts import BUFFERS_PER_REQUEST
from instances.part10 import split
from runtime.clock import SystemClock
from runtime.metrics import REGISTRY
from runtime.settings import MIB, EdgeSettings
from tests.datasets import MR_IMAGE_STORAGE, mr_dataset, part10
from tests.ingest.conftest import large_file, received

BOUNDARY = "a-boundary"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
Post = Callable[..., httpx.Response]


@dataclass(slots=True)
class StowServer:
    """The routes mounted as the web process mounts them."""

    settings: EdgeSettings
    app: Starlette
    publisher: LocalPublisher

    def post(
        self,
        content: bytes | AsyncIterator[bytes],
        *,
        path: str = "/studies",
        content_type: str = MULTIPART,
        **headers: str,
    ) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
                given = {
                    "content-type": content_type,
                    **{name.replace("_", "-"): text for name, text in headers.items()},
                }
                return await client.post(f"/dicom-web{path}", content=content, headers=given)

        return anyio.run(run)


@pytest.fixture
def start_stow(tmp_path: Path) -> Iterator[Callable[..., StowServer]]:
    servers: list[StowServer] = []

    def start(**options: object) -> StowServer:
        settings = EdgeSettings(**{"data_dir": tmp_path, "disk_reserve_bytes": 0, **options})  # type: ignore[arg-type]
        clock = SystemClock()
        publisher = LocalPublisher(settings.log_dir, writer=f"web-{len(servers)}")
        rule = DiskRule(settings, clock, uncommitted_bytes=lambda: 0)
        intake = Intake(publisher, settings, clock, rule, role="web")
        app = Starlette(routes=[Mount("/dicom-web", routes=stow_routes(intake, settings, clock))])
        servers.append(StowServer(settings, app, publisher))
        return servers[-1]

    yield start
    for server in servers:
        server.publisher.close()


@pytest.fixture
def stow(start_stow: Callable[..., StowServer]) -> StowServer:
    return start_stow()


def multipart(files: Sequence[bytes], *, part_type: str = "application/dicom", closed: bool = True) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: {part_type}\r\n\r\n".encode()
    body = b"".join(head + file + b"\r\n" for file in files)
    return body + (f"--{BOUNDARY}--\r\n".encode() if closed else b"")


async def dribble(body: bytes, size: int) -> AsyncIterator[bytes]:
    for offset in range(0, len(body), size):
        yield body[offset : offset + size]


def failures(response: httpx.Response) -> list[tuple[str, int]]:
    found = response.json().get("00081198", {}).get("Value", [])
    return [(item["00081155"]["Value"][0], item["00081197"]["Value"][0]) for item in found]


def stored(response: httpx.Response) -> list[str]:
    found = response.json().get("00081199", {}).get("Value", [])
    return [item["00081155"]["Value"][0] for item in found]


def test_a_study_is_stored(stow: StowServer) -> None:
    datasets = [mr_dataset(number) for number in (1, 2, 3)]
    files = [part10(dataset) for dataset in datasets]
    before = REGISTRY.get_sample_value("sansfilm_acknowledge_seconds_count") or 0
    response = stow.post(multipart(files))
    assert response.status_code == 200
    assert REGISTRY.get_sample_value("sansfilm_acknowledge_seconds_count") == before + 3
    assert response.headers["content-type"] == "application/dicom+json"
    assert stored(response) == [dataset.SOPInstanceUID for dataset in datasets]
    assert response.json()["00081190"]["Value"] == [
        f"http://127.0.0.1:8080/dicom-web/studies/{datasets[0].StudyInstanceUID}"
    ]
    assert "00081198" not in response.json()
    messages = received(stow.settings, 3)
    for message, file in zip(messages, files, strict=True):
        assert bytes(split(message.value)[1]) == bytes(split(file)[1])
        assert message.attributes.source.startswith("/web/")
    assert len({message.attributes.association_id for message in messages}) == 1


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_any_chunking_without_a_length(stow: StowServer, size: int) -> None:
    """Boundary-like bytes inside the data stay data."""
    trap = b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n--a-bound\r\n-"
    file = part10(mr_dataset(1, rows=32, columns=32)) + trap
    response = stow.post(dribble(multipart([file, file]), size))
    assert response.status_code == 200
    for message in received(stow.settings, 2):
        assert bytes(message.value).endswith(trap)
        assert bytes(split(message.value)[1]) == bytes(split(file)[1])


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_other_syntaxes(stow: StowServer, transfer_syntax: str) -> None:
    file = part10(mr_dataset(1), transfer_syntax)
    assert stow.post(multipart([file])).status_code == 200
    (message,) = received(stow.settings, 1)
    assert message.attributes.transfer_syntax == transfer_syntax
    assert bytes(split(message.value)[1]) == bytes(split(file)[1])


def test_large_instances_become_claim_checks(start_stow: Callable[..., StowServer]) -> None:
    stow = start_stow(inline_max_bytes=65536)
    files = [part10(mr_dataset(number, rows=size, columns=size)) for number, size in enumerate((400, 16, 512), 1)]
    assert stow.post(dribble(multipart(files), 10_000)).status_code == 200
    messages = received(stow.settings, 3)
    assert [bool(message.attributes.data_ref) for message in messages] == [True, False, True]
    for message, file in zip(messages, files, strict=True):
        kept = large_file(stow.settings, message) if message.attributes.data_ref else message.value
        assert bytes(split(kept)[1]) == bytes(split(file)[1])


def test_more_instances_than_buffers(stow: StowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[InstanceBuffer] = []
    monkeypatch.setattr("ingest.intake.InstanceBuffer", lambda size: made.append(InstanceBuffer(size)) or made[-1])
    files = [part10(mr_dataset(number, rows=16, columns=16)) for number in range(1, 41)]
    assert len(stored(stow.post(multipart(files)))) == 40
    assert 1 < len(made) <= BUFFERS_PER_REQUEST
    kept = [bytes(split(message.value)[1]) for message in received(stow.settings, 40)]
    assert kept == [bytes(split(file)[1]) for file in files]


def test_some_are_refused(stow: StowServer) -> None:
    good, other_study = mr_dataset(1), mr_dataset(2, study=2)
    query = mr_dataset(3, SOPClassUID="1.2.840.10008.5.1.4.1.2.2.1")
    jpip = part10(mr_dataset(4)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0", 1)
    files = [part10(good), part10(other_study), b"no DICOM file at all", part10(query), jpip]
    response = stow.post(multipart(files), path=f"/studies/{good.StudyInstanceUID}")
    assert response.status_code == 202
    assert stored(response) == [good.SOPInstanceUID]
    assert failures(response) == [(other_study.SOPInstanceUID, 0xA900), (query.SOPInstanceUID, 0x0122)]
    others = response.json()["0008119A"]["Value"]
    assert [item["00081197"]["Value"][0] for item in others] == [0xC000, 0xC122]
    assert len(received(stow.settings, 1)) == 1


def test_a_study_none_of_which_belongs(stow: StowServer) -> None:
    response = stow.post(multipart([part10(mr_dataset(1))]), path="/studies/1.2.3")
    assert response.status_code == 409
    assert failures(response) == [(mr_dataset(1).SOPInstanceUID, 0xA900)]
    assert received(stow.settings, 0) == []


def test_answers_in_xml(stow: StowServer) -> None:
    response = stow.post(multipart([part10(mr_dataset(1))]), accept="application/dicom+xml")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+xml"
    root = ET.fromstring(response.content)
    path = "DicomAttribute[@keyword='ReferencedSOPSequence']/Item/DicomAttribute[@tag='00081155']/Value"
    assert root.findtext(path) == mr_dataset(1).SOPInstanceUID


@pytest.mark.parametrize(
    ("content", "content_type", "path", "headers", "status"),
    [
        (b"", MULTIPART, "/studies", {}, 400),
        (multipart([]), MULTIPART, "/studies", {}, 400),
        (b"no multipart", MULTIPART, "/studies", {}, 400),
        (multipart([b"x"]), "application/dicom", "/studies", {}, 415),
        (multipart([b"x"]), "multipart/related; type=application/dicom", "/studies", {}, 400),
        (
            multipart([b"x"]),
            f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}',
            "/studies",
            {},
            415,
        ),
        (multipart([b"x"]), f"multipart/related; boundary={'b' * 5000}", "/studies", {}, 400),
        (multipart([b"x"]), "multipart/related; boundary*=utf-8''x", "/studies", {}, 400),
        (
            multipart([b"x"]),
            f"multipart/related; type*=utf-8''application%2Fjson; boundary={BOUNDARY}",
            "/studies",
            {},
            415,
        ),
        (multipart([b"x"], part_type="image/jpeg"), MULTIPART, "/studies", {}, 415),
        (multipart([b"x"]), MULTIPART, "/studies/..%2F..%2Fetc", {}, 404),
        (multipart([b"x"]), MULTIPART, "/studies/a..b", {}, 400),
        (multipart([b"x"]), MULTIPART, "/studies", {"accept": "text/html"}, 406),
        (multipart([b"x"]), MULTIPART, "/studies", {"content_length": "9999"}, 400),
        (multipart([b"x"]), MULTIPART, "/studies", {"content_length": "3"}, 400),
        (multipart([b"x"]), MULTIPART, "/studies", {"content_length": "-1"}, 400),
        (multipart([b"x"]), MULTIPART, "/studies", {"content_length": "9" * 30}, 400),
        (multipart([b"rubbish"]), MULTIPART, "/studies", {}, 409),
    ],
)
def test_bad_requests(
    stow: StowServer, content: bytes, content_type: str, path: str, headers: dict[str, str], status: int
) -> None:
    response = stow.post(content, path=path, content_type=content_type, **headers)
    assert response.status_code == status
    assert response.content
    assert received(stow.settings, 0) == []


def test_a_length_is_needed(stow: StowServer) -> None:
    async def run() -> list[dict[str, object]]:
        sent: list[dict[str, object]] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/dicom-web/studies",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", MULTIPART.encode()), (b"host", b"localhost")],
        }
        await stow.app(scope, receive, send)  # type: ignore[arg-type]
        return sent

    assert anyio.run(run)[0]["status"] == 411


def test_a_body_that_ends_early_stores_no_half(stow: StowServer) -> None:
    files = [part10(mr_dataset(1)), part10(mr_dataset(2))]
    response = stow.post(multipart(files, closed=False)[:-500])
    assert response.status_code == 400
    (message,) = received(stow.settings, 1)
    assert message.attributes.sop_instance_uid == mr_dataset(1).SOPInstanceUID


def test_an_instance_over_the_limit(start_stow: Callable[..., StowServer]) -> None:
    stow = start_stow(object_max_bytes=MIB, inline_max_bytes=65536)
    response = stow.post(multipart([part10(mr_dataset(1, rows=1024, columns=1024))]))
    assert response.status_code == 413
    assert received(stow.settings, 0) == []
    assert not [path for path in stow.settings.archive_dir.rglob("*") if path.is_file()]


def test_a_full_disk(start_stow: Callable[..., StowServer]) -> None:
    stow = start_stow(disk_reserve_bytes=1 << 60)
    response = stow.post(multipart([part10(mr_dataset(1))]))
    assert response.status_code == 503 and response.headers["retry-after"]
    assert [reason for _, reason in failures(response)] + [
        item["00081197"]["Value"][0] for item in response.json().get("0008119A", {}).get("Value", [])
    ] == [0xA700]
    assert received(stow.settings, 0) == []


def test_a_closed_log(stow: StowServer) -> None:
    stow.publisher.close()
    assert stow.post(multipart([part10(mr_dataset(1))])).status_code == 503


def test_a_body_that_halts(start_stow: Callable[..., StowServer]) -> None:
    stow = start_stow(idle_timeout_s=0.2, inline_max_bytes=4096)

    async def halting() -> AsyncIterator[bytes]:
        yield multipart([part10(mr_dataset(1))], closed=False)[:-100]
        await anyio.Event().wait()

    async def trickling() -> AsyncIterator[bytes]:
        for byte in multipart([part10(mr_dataset(1))], closed=False):
            yield bytes([byte])
            await anyio.sleep(0.02)

    # httpx does not give up on its own body; the server answers first.
    async def run(body: AsyncIterator[bytes]) -> int:
        with anyio.move_on_after(10):
            transport = httpx.ASGITransport(app=stow.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                response = await client.post("/dicom-web/studies", content=body, headers={"content-type": MULTIPART})
                return response.status_code
        return 0

    assert anyio.run(run, halting()) == 408
    assert anyio.run(run, trickling()) == 408
    assert not list(stow.settings.archive_dir.rglob("*.part"))


def test_nothing_planted_is_said(stow: StowServer, capsys: pytest.CaptureFixture[str]) -> None:
    response = stow.post(multipart([part10(mr_dataset(1)), part10(mr_dataset(2, study=2))]), path="/studies/1.2")
    said = json.dumps(response.json()) + "".join(capsys.readouterr())
    assert "PLANTED" not in said and MR_IMAGE_STORAGE in said


@pytest.mark.parametrize("preamble", [b"", b"\r", b"This is a message in many parts.", b"x" * 50_000])
def test_what_comes_before_the_first_boundary_is_ignored(stow: StowServer, preamble: bytes) -> None:
    """RFC 2046 5.1.1: a preamble, however short, and a line's end before the first boundary."""
    answer = stow.post(preamble + b"\r\n" + multipart([part10(mr_dataset(1))]))
    assert answer.status_code == 200


def test_a_body_without_its_boundary_is_refused(stow: StowServer) -> None:
    assert stow.post(b"x" * 200_000).status_code == 400
    assert stow.post(b"x--" + BOUNDARY.encode() + b"\r\n").status_code == 400
