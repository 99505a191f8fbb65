"""Access events, and what must never be in them."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from dicomweb.app import create_app
from runtime.errors import Retryable
from runtime.metrics import REGISTRY
from tests.datasets import PLANTED, ROOT, mr_dataset
from tests.dicomweb.library import Library

pytestmark = pytest.mark.anyio
ONE = f"/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.1/instances/{ROOT}.1.1.1"


async def test_every_read_leaves_an_event(library: Library) -> None:
    library.add(mr_dataset(1))
    with capture_logs() as events:
        async with library.client() as client:
            answer = await client.get(f"{ONE}/frames/1")
    [event] = events
    assert event["event"] == "resource_read"
    assert event["service"] == "frames"
    assert event["method"] == "GET"
    assert event["route"] == "/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"
    assert (event["principal"], event["tenant"]) == ("anonymous", "default")
    assert event["study_instance_uid"] == f"{ROOT}.1"
    assert event["sop_instance_uid"] == f"{ROOT}.1.1.1"
    assert (event["status"], event["sent_bytes"]) == (200, len(answer.content))


async def test_refused_and_failed_reads_leave_one_too(library: Library) -> None:
    with capture_logs() as events:
        async with library.client() as client:
            await client.get("/dicom-web/studies/1.2.3")
            await client.get("/dicom-web/studies?Foo=1")
            await client.get("/dicom-web/studies/%3Cscript%3E")
    assert [(event["status"]) for event in events] == [404, 400, 404]
    assert "study_instance_uid" not in events[2]


async def test_a_method_that_http_does_not_know_is_not_repeated(library: Library) -> None:
    with capture_logs() as events:
        async with library.client() as client:
            assert (await client.request("DUPONT", ONE)).status_code == 405
    assert [event["method"] for event in events] == ["other"]


async def test_no_patient_attribute_leaves_but_in_bodies(library: Library) -> None:
    library.add(mr_dataset(1))
    queries = [f"/dicom-web/studies?{key}={value}" for key, value in PLANTED.items()]
    queries += [f"/dicom-web/studies?{key}={value}&Foo={value}" for key, value in PLANTED.items()]
    errors = []
    with capture_logs() as events:
        async with library.client() as client:
            for path in [*queries, f"{ONE}/metadata", ONE, "/", f"/dicom-web/studies/{PLANTED['PatientID']}"]:
                answer = await client.get(path)
                if answer.status_code >= 400:
                    errors.append(answer.text)
            await client.post("/list", data={"text": PLANTED["PatientName"]})
            metrics = (await client.get("/metrics")).text
    text = str(events) + metrics + "".join(errors)
    assert len(events) == 11
    assert not [value for value in PLANTED.values() if value in text]


async def test_an_unforeseen_error_is_told_without_its_message(library: Library) -> None:
    def failing(*_: object) -> object:
        raise ZeroDivisionError(PLANTED["PatientName"])

    library.reader.search = failing  # type: ignore[method-assign,assignment]
    with capture_logs() as events:
        async with library.client() as client:
            answer = await client.get("/dicom-web/studies")
    assert answer.status_code == 500
    assert PLANTED["PatientName"] not in answer.text + str(events)
    assert [event["event"] for event in events] == ["read_failed", "resource_read"]


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:8080", 200), ("[::1]:8080", 200), ("evil.example", 421), ("", 421)]
)
async def test_other_names_are_kept_out_of_loopback(library: Library, host: str, status: int) -> None:
    async with library.client() as client:
        assert (await client.get("/dicom-web/studies", headers={"Host": host})).status_code == status
    async with library.client(library.app(insecure_demo=True)) as client:
        assert (await client.get("/dicom-web/studies", headers={"Host": host})).status_code == 200


async def test_a_passing_fault_asks_for_patience(library: Library) -> None:
    library.add(mr_dataset(1))

    def away(*_: object) -> bytes:
        raise Retryable("the store is away")

    library.store.read = away  # type: ignore[method-assign,assignment]
    async with library.client() as client:
        answer = await client.get(f"{ONE}/frames/1")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"


async def test_routes_from_outside_join_the_default_tenant(library: Library) -> None:
    async def store(request: Request) -> Response:
        return Response(status_code=202)

    routes = [Route("/studies", store, methods=["POST"])]
    app = create_app(library.settings(), library.reader, library.store, library.decoder, extra_routes=routes)
    with capture_logs() as events:
        async with library.client(app) as client:
            assert (await client.post("/dicom-web/studies")).status_code == 202
            assert (await client.get("/dicom-web/studies")).status_code == 200
            assert (await client.post("/t/north/dicom-web/studies")).status_code == 405
    assert [event["event"] for event in events] == ["instances_stored", "resource_read", "resource_read"]


@pytest.mark.parametrize("path", ["/", "/dicom-web/studies", "/dicom-web/studies/1.2", "/metrics", "/nothing"])
async def test_security_headers_are_on_every_answer(library: Library, path: str) -> None:
    async with library.client() as client:
        answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_an_address_has_a_limit(library: Library) -> None:
    async with library.client() as client:
        answer = await client.get("/dicom-web/studies?PatientID=" + "1" * 40_000)
        method = await client.delete("/dicom-web/studies")
    assert answer.status_code == 414
    assert method.status_code == 405


async def test_services_are_counted_by_bounded_names(library: Library) -> None:
    library.add(mr_dataset(1))
    paths = {
        "qido": "/dicom-web/studies", "wado": ONE, "metadata": f"{ONE}/metadata", "frames": f"{ONE}/frames/1",
        "bulkdata": f"{ONE}/bulkdata/7FE00010", "list": "/", "unknown": "/dicom-web/nothing",
    }  # fmt: skip
    before = {service: counted(service) for service in paths}
    async with library.client() as client:
        for path in paths.values():
            await client.get(path)
    assert {service: counted(service) - before[service] for service in paths} == dict.fromkeys(paths, 1)


def counted(service: str) -> float:
    """Requests of a service so far, whatever their outcome."""
    labels = [{"service": service, "status": status} for status in ("2xx", "4xx")]
    return sum(REGISTRY.get_sample_value("sansfilm_http_requests_total", one) or 0 for one in labels)
