"""`sansfilm demo`: a synthetic brain MR, sent by real C-STORE to a running sansfilm, and the link that opens it."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast, get_args

from cli.association import Peer
from cli.exam import Exam
from cli.files import Sendable, examine
from cli.output import err, out, print_json
from cli.phantom import Contrast
from cli.send import progress_bar, send_with_progress
from runtime.errors import Fatal, Misconfigured
from runtime.settings import WebSettings

_ASSOCIATIONS = 2
_POLL_S = 0.1
_HTTP_TIMEOUT_S = 5.0
_SEEDED_MOMENT = datetime(2026, 3, 1, 8, 15)  # noqa: DTZ001 - DICOM's local time, of an exam that never took place


def run_demo(
    settings: WebSettings, *, slices: int, series: Sequence[str], seed: int | None, wait_s: float, as_json: bool
) -> int:
    """Make, send, wait until all of it can be read, print the link."""
    exam = make_exam(slices=slices, series=series, seed=seed)
    host = local_host(settings.bind_address)
    peer = Peer(called_ae=settings.ae_title, host=host, port=settings.dicom_port, calling_ae="DEMO-MR")
    started_s = time.monotonic()
    with TemporaryDirectory(prefix="sansfilm-demo-") as folder:
        files = _write(exam, Path(folder))
        summary = send_with_progress(files, peer, associations=_ASSOCIATIONS)
    if summary.failed:
        first = summary.failed[0]
        why = first.problem or f"status {first.status:04X}H"
        raise Fatal(f"{len(summary.failed)} of {exam.instance_count} instances were not accepted ({why})")
    web = f"http://{_bracketed(host)}:{settings.http_port}"
    _wait_until_readable(web, exam, wait_s)
    link = f"{web}/viewer?StudyInstanceUIDs={exam.study_instance_uid}"
    seconds = time.monotonic() - started_s
    if as_json:
        print_json({"study_instance_uid": exam.study_instance_uid, "instances": exam.instance_count, "link": link})
    else:
        out().print(f"{exam.instance_count} instances sent, committed and readable in {seconds:.1f} s")
        out().print(f"open it: {link}", soft_wrap=True)
    return 0


def make_exam(*, slices: int, series: Sequence[str], seed: int | None) -> Exam:
    """The exam of a seed, or a new one.

    Raises:
        Misconfigured: a series that does not exist.
    """
    known = get_args(Contrast)
    wanted = [name.strip().upper() for name in series]
    if not wanted or any(name not in known for name in wanted) or len(set(wanted)) != len(wanted):
        raise Misconfigured(f"--series takes some of {','.join(known)}")
    return Exam(
        seed=secrets.randbelow(10**8) if seed is None else seed,
        identity=str(uuid.uuid4()) if seed is None else f"demo/{seed}/{slices}",
        acquired=datetime.now().astimezone() if seed is None else _SEEDED_MOMENT,
        slices=slices,
        series=cast("list[Contrast]", wanted),
    )


def local_host(bind_address: str) -> str:
    """Where a server bound to `bind_address` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind_address, bind_address)


def _write(exam: Exam, folder: Path) -> list[Sendable]:
    files = []
    with progress_bar() as bar:
        task = bar.add_task("drawing a brain", total=exam.instance_count)
        for number, (_, content) in enumerate(exam.instances()):
            path = folder / f"{number:05d}.dcm"
            path.write_bytes(content)
            file = examine(path)
            assert isinstance(file, Sendable)
            files.append(file)
            bar.advance(task)
    return files


def _wait_until_readable(web: str, exam: Exam, wait_s: float) -> None:
    deadline_s = time.monotonic() + wait_s
    with err().status("waiting until it is committed ..."):
        while (count := _readable_count(web, exam.study_instance_uid)) < exam.instance_count:
            if time.monotonic() >= deadline_s:
                raise Fatal(
                    f"{count} of {exam.instance_count} instances can be read after {wait_s:g} s; all are acknowledged: "
                    "see sansfilm status"
                )
            time.sleep(_POLL_S)


def _readable_count(web: str, study_instance_uid: str) -> int:
    """NumberOfStudyRelatedInstances by QIDO-RS; 0 while the study is unknown."""
    url = f"{web}/dicom-web/studies?StudyInstanceUID={study_instance_uid}"
    request = urllib.request.Request(url, headers={"Accept": "application/dicom+json"})
    try:
        with urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT_S) as response:
            studies = json.loads(response.read() or b"[]")
    except urllib.error.HTTPError as error:
        raise Fatal(f"{web} answered {error.code}: is that sansfilm's HTTP port?") from error
    except OSError as error:
        raise Fatal(f"{web} does not answer: is sansfilm up running, on that SANSFILM_HTTP_PORT?") from error
    return int(studies[0]["00201208"]["Value"][0]) if studies else 0


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
