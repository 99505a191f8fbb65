"""The study list, health and metrics, and the viewer's files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archive.catalog import Scope
from dicomweb.app import create_app
from dicomweb.pages import ROWS_PER_PAGE, readable_name
from dicomweb.viewer import content_security_policy
from schemas.decisions import UseVersion
from tests.datasets import ROOT, mr_dataset
from tests.dicomweb.library import Library

pytestmark = pytest.mark.anyio


def viewer(folder: Path) -> Path:
    """A folder shaped like the viewer's package."""
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<html><script>window.PUBLIC_URL = '/';</script></html>")
    (folder / "app.bundle.096daabbdde29bd851ab.js").write_text("run()")
    (folder / "app.bundle.096daabbdde29bd851ab.js.gz").write_bytes(b"\x1f\x8bcompressed")
    (folder / "17dd54813d5acc10bf8f.wasm").write_bytes(b"\0asm")
    (folder / "sw.js").write_text("importScripts('https://elsewhere.example/')")
    (folder / "app-config.js").write_text("window.config = {theirs: true}")
    (folder.parent / "secret.txt").write_text("secret")
    return folder


async def test_an_empty_archive_says_how_to_send_the_first_exam(library: Library) -> None:
    app = library.app(ae_title="NORTH", dicom_port=11119)
    async with library.client(app) as client:
        page = (await client.get("/")).text
    assert "storescu -aec NORTH +sd +r 127.0.0.1 11119" in page


async def test_a_row_shows_what_a_person_looks_for(library: Library, tmp_path: Path) -> None:
    library.add(mr_dataset(1, PatientName="DUPONT^MARIE", StudyDescription="<b>Brain</b>"), mr_dataset(2))
    library.conflict(mr_dataset(1, study=2), mr_dataset(1, study=2, seed=1))
    app = library.app(viewer_dir=viewer(tmp_path / "viewer"))
    async with library.client(app) as client:
        page = (await client.get("/")).text
    rows = re.findall(r"<tr>.*?</tr>", page, re.DOTALL)[1:]
    [one] = [row for row in rows if "DUPONT, MARIE" in row]
    assert "2026-03-01" in one
    assert "08:15" in one
    assert ">MR<" in one
    assert "&lt;b&gt;Brain&lt;/b&gt;" in one
    assert f'href="/viewer?StudyInstanceUIDs={ROOT}.1"' in one
    assert "conflicting" not in one
    [other] = [row for row in rows if row is not one]
    assert "1 conflicting" in other


async def test_without_the_viewer_rows_say_so_and_open_nothing(library: Library) -> None:
    library.add(mr_dataset(1))
    async with library.client() as client:
        page = (await client.get("/")).text
        opened = await client.get(f"/viewer?StudyInstanceUIDs={ROOT}.1")
    assert "viewer not installed" in page
    assert "/viewer?" not in page
    assert opened.status_code == 303


async def test_searching_by_every_word_in_a_body(library: Library) -> None:
    library.add(mr_dataset(1, study=1, PatientName="DUPONT^MARIE"))
    library.add(mr_dataset(1, study=2, PatientName="DUPONT^PAUL", AccessionNumber="N77"))
    async with library.client() as client:
        found = (await client.post("/list", data={"text": "dup n77"})).text
        whole = (await client.post("/", data={"text": "marie"})).text
        as_shown = (await client.post("/list", data={"text": "Dupont, Marie ·"})).text
        nothing = (await client.post("/list", data={"text": "zzz"})).text
    assert "DUPONT, PAUL" in found
    assert "DUPONT, MARIE" not in found
    assert "<html" not in found
    assert "DUPONT, MARIE" in whole
    assert 'value="marie"' in whole
    assert "DUPONT, MARIE" in as_shown and "DUPONT, PAUL" not in as_shown
    assert "Nothing matches" in nothing


async def test_paging(library: Library) -> None:
    library.add(*[mr_dataset(1, study=number, rows=8, columns=8) for number in range(1, ROWS_PER_PAGE + 3)])
    async with library.client() as client:
        first = (await client.get("/")).text
        second = (await client.post("/list", data={"page": "2"})).text
        beyond = (await client.post("/list", data={"page": "9"})).text
        odd = (await client.post("/list", data={"page": "-1"})).text
        endless = (await client.post("/list", data={"page": 5000 * "9"})).text
    assert first.count('<td class="patient">') == ROWS_PER_PAGE
    assert second.count('<td class="patient">') == 2
    assert "26–27" in second
    assert "No more studies" in beyond
    assert odd == endless
    assert odd.count('<td class="patient">') == ROWS_PER_PAGE


async def test_the_version_changes_with_every_commit(library: Library) -> None:
    async with library.client() as client:
        first = await client.get("/list/version")
        same = await client.get("/list/version", headers={"If-None-Match": first.headers["etag"]})
        library.add(mr_dataset(1))
        changed = await client.get("/list/version", headers={"If-None-Match": first.headers["etag"]})
        page = (await client.get("/")).text
    assert (first.status_code, same.status_code, changed.status_code) == (200, 304, 200)
    assert f'data-version="{changed.headers["etag"][1:-1]}"' in page


async def test_a_study_of_two_patients_is_marked(library: Library) -> None:
    library.add(mr_dataset(1), mr_dataset(1, study=2))
    async with library.client() as client:
        before = await client.get("/list/version")
        assert "different patient IDs" not in (await client.get("/")).text
        library.add(mr_dataset(2, PatientID="OTHER"))
        page, after = (await client.get("/")).text, await client.get("/list/version")
    assert page.count("different patient IDs<") == 1
    assert before.text != after.text


async def test_the_version_changes_with_a_decision(library: Library) -> None:
    """Another version of an instance may have another patient's name: a list that is open must follow."""
    library.conflict(mr_dataset(1), mr_dataset(1, seed=2))
    scope = Scope(principal="test", tenant="default")
    digests = [known.wire_sha256 for known, _ in library.reader.versions(scope, f"{ROOT}.1.1.1")]
    tags = []
    async with library.client() as client:
        for number, digest in enumerate([digests[0], digests[1], digests[0]]):
            chosen = UseVersion(tenant="default", sop_instance_uid=f"{ROOT}.1.1.1", wire_sha256=digest)
            assert library.catalog.apply(chosen, decision_id=f"d{number}", decided_at="2026", decided_by="ops")
            tags.append((await client.get("/list/version")).headers["etag"])
        library.catalog.apply(chosen, decision_id="d2", decided_at="2026", decided_by="ops")  # delivered again
        again = (await client.get("/list/version")).headers["etag"]
    assert len(set(tags)) == 3
    assert again == tags[-1]


async def test_the_demo_banner_is_on_the_page(library: Library) -> None:
    async with library.client(library.app(insecure_demo=True)) as client:
        assert "Insecure demo" in (await client.get("/")).text
    async with library.client() as client:
        assert "Insecure demo" not in (await client.get("/")).text


async def test_the_viewer_is_served_as_it_needs_it(library: Library, tmp_path: Path) -> None:
    async with library.client(library.app(viewer_dir=viewer(tmp_path / "viewer"))) as client:
        page = await client.get(f"/viewer?StudyInstanceUIDs={ROOT}.1")
        plain = {"Accept-Encoding": "identity"}
        bundle = await client.get("/app.bundle.096daabbdde29bd851ab.js", headers=plain)
        decoder = await client.get("/17dd54813d5acc10bf8f.wasm")
        configuration = await client.get("/app-config.js")
        worker = await client.get("/sw.js")
        no_worker = await client.get("/init-service-worker.js")
        outside = await client.get("/..%2Fsecret.txt")
        index = await client.get("/index.html")
        odd = [await client.get(f"/{path}") for path in ("%00", "assets/%00.js", "a" * 300, "a/" * 1500)]
    assert "'sha256-" in page.headers["content-security-policy"]
    assert "unsafe-eval'" not in page.headers["content-security-policy"].replace("wasm-unsafe-eval'", "")
    assert bundle.text == "run()"
    assert "immutable" in bundle.headers["cache-control"]
    assert decoder.headers["content-type"] == "application/wasm"
    assert "/dicom-web" in configuration.text
    assert not re.search(r"https?://", configuration.text)
    assert (worker.status_code, outside.status_code, index.status_code) == (404, 404, 404)
    assert {answer.status_code for answer in odd} == {404}
    assert "importScripts" not in no_worker.text


def test_no_policy_names_another_host() -> None:
    policy = content_security_policy(b"<script>a()</script><script>b()</script>")
    assert policy.count("'sha256-") == 2
    assert not re.search(r"https?:|//|\*", policy)


async def test_health_and_metrics(library: Library) -> None:
    ready = [False]
    app = library.app()
    async with library.client(app) as client:
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        await client.get("/dicom-web/studies")
        metrics = (await client.get("/metrics")).text
    assert 'sansfilm_http_requests_total{service="qido",status="2xx"}' in metrics
    waiting = create_app(
        library.settings(), library.reader, library.store, library.decoder,
        ready=lambda: ready[0], collect_metrics=lambda: b"merged 1\n",
    )  # fmt: skip
    async with library.client(waiting) as client:
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/metrics")).text == "merged 1\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("DUPONT^MARIE^ANNE^^", "DUPONT, MARIE ANNE"),
        ("DUPONT", "DUPONT"),
        ("^MARIE", "MARIE"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou · 山田, 太郎"),
        ("", ""),
    ],
)
def test_names_are_shown_as_people_read_them(name: str, shown: str) -> None:
    assert readable_name(name) == shown
