"""No patient data in logs, metrics, addresses and refusals, after traffic of every kind over the whole product.

Every planted value holds the word PLANTED or is the planted date, so two needles find any of them however it was cut.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from urllib.parse import quote

import httpx
from playwright.sync_api import Browser
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from tests.cli.test_up import House, _all_ready, _pid_of
from tests.datasets import MR_IMAGE_STORAGE, ROOT, dataset_bytes, mr_dataset, part10
from tests.dicomweb.test_browser import DEADLINE_S, browser, open_page
from tests.ingest.peers import EXPLICIT_LE, Peer, pdu, pdv
from tests.ingest.test_stow import MULTIPART, multipart
from tests.waiting import until

__all__ = ["browser"]
MR = (1, MR_IMAGE_STORAGE, (EXPLICIT_LE,))
J2K = (3, MR_IMAGE_STORAGE, (str(JPEG2000Lossless),))
NAME, DATE = "PLANTED^NAME", "19310407"
NEEDLES = (b"planted", DATE.encode(), b"1931-04-07")
EVERYWHERE = {
    "ReferringPhysicianName": "PLANTED^PHYSICIAN",
    "InstitutionName": "PLANTED HOSPITAL",
    "AccessionNumber": "PLANTED-ACC",
    "StudyDescription": "PLANTED study",
    "SeriesDescription": "PLANTED series",
    "PatientComments": "PLANTED comment",
}
STUDIES = "/dicom-web/studies"
UID_1 = f"{ROOT}.1.1.1"


def test_no_patient_attribute_leaves_but_in_bodies(house: House, browser: Browser) -> None:
    with house.up(SANSFILM_LOG_LEVEL="debug") as process:
        _send(house)
        assert house.run("status", "--wait-drained", "--timeout-s", "20").returncode == 0
        refusals = _refused_stows(house) + _searches_and_reads(house)
        addresses = _use_a_browser(house, browser)
        refusals += _decide(house)
        os.kill(_pid_of(process, "worker"), signal.SIGKILL)
        until(lambda: _all_ready(process, house), timeout_s=30)
        metrics = house.get("/metrics")[1]
        said = _stop(process)
    logs = {path.name: path.read_bytes() for path in (house.folder / "logs").iterdir()}
    assert logs["edge-0.log"].count(b"PRIVATE-MR") and b"instance_quarantined" in logs["worker-0.log"]
    assert logs["web-0.log"].count(b"resource_read") > 20
    shown = {
        **logs,
        "terminal": said.encode(),
        "metrics": metrics.encode(),
        "refusals": "\n".join(refusals).encode(),
        "addresses": "\n".join(addresses).encode(),
        "run folder": b"".join(path.read_bytes() for path in (house.folder / "run").iterdir() if path.is_file()),
    }
    found = [
        (name, _around(text, needle)) for name, text in shown.items() for needle in NEEDLES if needle in text.lower()
    ]
    assert found == []


def planted(number: int, **overrides: object) -> Dataset:
    return mr_dataset(number, rows=16, columns=16, **{**EVERYWHERE, **overrides})  # type: ignore[arg-type]


def _send(house: House) -> None:
    """Filed, same, in conflict, in quarantine, of odd character sets, unreadable, refused: each by C-STORE."""
    odd = [
        planted(2, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="PLANTED^TARO=山田^太郎"),
        planted(3, SpecificCharacterSet="ISO_IR 192", PatientName="PLANTED^ÉLÉONORE"),
        planted(4, PatientID=""),
    ]
    encoded = {str(one.SOPInstanceUID): dataset_bytes(one) for one in [planted(1), *odd]}
    lying = dataset_bytes(planted(5, SpecificCharacterSet="ISO_IR 100"))
    encoded[f"{ROOT}.1.1.5"] = lying.replace(b"ISO_IR 100", b"PLANTED-CS")
    encoded[f"{ROOT}.1.1.6"] = dataset_bytes(planted(6)).replace(b"081500", b"PLANT")[:-7]
    wrong_values = dataset_bytes(planted(7)).replace(b"20260301", b"PLANTED!")
    encoded[f"{ROOT}.1.1.7"] = wrong_values
    no_series = dataset_bytes(planted(8, SeriesDescription="PLANTED series"))
    encoded[f"{ROOT}.1.1.8"] = no_series.replace(f"{ROOT}.1.1\0".encode(), b"PLANTED/../NAME".ljust(len(ROOT) + 5))
    with Peer(house.dicom_port) as peer:
        assert peer.associate(MR, J2K, calling_ae=b"PRIVATE-MR")
        for uid, dataset in encoded.items():
            assert peer.store(MR_IMAGE_STORAGE, uid, dataset).status == 0
        again = dataset_bytes(planted(1))
        assert peer.store(MR_IMAGE_STORAGE, UID_1, again).status == 0
        assert peer.store(MR_IMAGE_STORAGE, UID_1, dataset_bytes(planted(1, seed=9))).status == 0
        broken = planted(9)
        broken.PixelData = encapsulate([b"PLANTED^NAME is no codestream "])
        broken["PixelData"].VR = "OB"
        sent = dataset_bytes(broken, JPEG2000Lossless)
        assert peer.store(MR_IMAGE_STORAGE, broken.SOPInstanceUID, sent, context_id=3).status == 0
        refused = [
            peer.store(MR_IMAGE_STORAGE, "1.2.3.4", again),
            peer.store(MR_IMAGE_STORAGE, UID_1, b"PLANTED^NAME" * 20),
        ]
        assert [one.status for one in refused] == [0xA900, 0xC000]
        assert not any("PLANTED" in one.comment for one in refused)
        peer.send_store_command(MR_IMAGE_STORAGE, UID_1)
        peer.send(pdu(0x04, pdv(1, 0, again[:400])) + b"PLANTED^NAME")
        until(lambda: peer.read_pdu()[0] in (0, 7))
    with Peer(house.dicom_port) as stranger:
        stranger.send(b"PLANTED^NAME" * 10)
        stranger.read_pdu()


def _refused_stows(house: House) -> list[str]:
    file = part10(planted(20, study=2))
    named = multipart([file]).replace(
        b"Content-Type", b'Content-Disposition: x; filename="PLANTED^NAME"\r\nContent-Type'
    )
    nowhere = part10(planted(21)).replace(f"{ROOT}.1.1.21".encode(), b" " * len(f"{ROOT}.1.1.21"))
    with _client(house) as client:
        answers = [
            client.post(STUDIES, content=multipart([file])[:-9], headers={"content-type": MULTIPART}),
            client.post(f"{STUDIES}/1.2.3", content=multipart([file]), headers={"content-type": MULTIPART}),
            client.post(STUDIES, content=multipart([b"PLANTED^NAME" * 90]), headers={"content-type": MULTIPART}),
            client.post(STUDIES, content=multipart([nowhere]), headers={"content-type": MULTIPART}),
            client.post(STUDIES, content=file, headers={"content-type": "text/PLANTED; x=PLANTED"}),
            client.post(STUDIES, content=b"PLANTED", headers={"content-type": "multipart/PLANTED"}),
            client.post(STUDIES, content=named[:600], headers={"content-type": MULTIPART}),
            client.post(f"{STUDIES}/PLANTED^NAME", content=named, headers={"content-type": MULTIPART}),
        ]
        accepted = client.post(STUDIES, content=named, headers={"content-type": MULTIPART})
    assert accepted.status_code == 200, accepted.text
    assert all(answer.status_code >= 400 for answer in answers), [answer.status_code for answer in answers]
    return [_head_and_text(answer) for answer in answers]


def _searches_and_reads(house: House) -> list[str]:
    """Names in queries, paths, forms and headers; what is refused of it."""
    name, study = quote(NAME), f"{STUDIES}/{ROOT}.1"
    paths = [
        f"{STUDIES}?PatientName={name}&PatientID=PLANTED*&PatientBirthDate={DATE}",
        f"{STUDIES}?PatientName={name}&PatientBirthDate=PLANTED",
        f"{STUDIES}?{name}={name}",
        f"{STUDIES}?PatientName={name}&limit=PLANTED",
        f"{STUDIES}?includefield={name}",
        f"{STUDIES}?StudyInstanceUID={name}",
        f"{STUDIES}/{name}",
        f"{STUDIES}/{name}/metadata",
        f"{study}/series/{name}/instances/{name}",
        f"{study}/series/{ROOT}.1.1/instances/{ROOT}.1.1.9/frames/1",
        f"{study}/series/{ROOT}.1.1/instances/{UID_1}/frames/PLANTED",
        f"{study}/series/{ROOT}.1.1/instances/{UID_1}/bulkdata/PLANTED",
        f"/t/{name}/dicom-web/studies",
        f"/{name}",
        f"/viewer?StudyInstanceUIDs={name}",
        f"/?text={name}",
        study,
        f"{study}/metadata",
    ]
    with _client(house) as client:
        answers = [client.get(path) for path in paths]
        answers += [client.get(study, headers={header: NAME}) for header in ("accept", "range", "host", "referer")]
        answers.append(client.request("PLANTED", study))
        form = {"content-type": "application/x-www-form-urlencoded"}
        answers.append(client.post("/dicom-web/search/studies", content=f"PatientName={name}", headers=form))
        answers.append(client.post("/dicom-web/search/studies", content=f"StudyDate={name}", headers=form))
        answers.append(client.post("/", content=f"text={name}", headers=form))
    assert b"PLANTED" in answers[0].content, "the search finds the planted patient"
    assert max(answer.status_code for answer in answers) < 500, [answer.status_code for answer in answers]
    refused = [answer for answer in answers if answer.status_code >= 400]
    assert len(refused) > 10
    return [_head_and_text(answer) for answer in refused]


def _use_a_browser(house: House, browser: Browser) -> list[str]:
    """Search the list by typing a name, open the study; every address that the browser asked for."""
    watched = open_page(browser)
    page = watched.page
    page.goto(f"http://127.0.0.1:{house.http_port}")
    page.locator("#text").fill("planted, name")
    page.get_by_text("matching your search").wait_for(timeout=DEADLINE_S * 1000)
    page.get_by_role("link", name="PLANTED").first.click()
    page.locator("canvas.cornerstone-canvas").first.wait_for(timeout=DEADLINE_S * 1000)
    assert any("/viewer" in address for address in watched.addresses)
    page.context.close()
    return watched.addresses


def _decide(house: House) -> list[str]:
    """Replays and decisions, and what the commands say on standard error."""
    entries = json.loads(house.run("quarantine", "ls", "--json").stdout)
    assert entries
    digests = [row["wire_sha256"] for row in json.loads(house.run("conflict", "ls", "--json").stdout)]
    done = [
        house.run("quarantine", "replay", entries[0]["id"]),
        house.run("conflict", "use", UID_1, digests[1]),
        house.run("archive", "verify"),
    ]
    return [one.stderr for one in done[:2]] + [done[2].stdout + done[2].stderr]


def _stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    return said


def _client(house: House) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{house.http_port}", timeout=30)


def _head_and_text(answer: httpx.Response) -> str:
    return f"{answer.headers}\n{answer.text}"


def _around(text: bytes, needle: bytes) -> bytes:
    at = text.lower().index(needle)
    return text[max(0, at - 160) : at + 80]
