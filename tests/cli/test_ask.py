"""Commands that ask and decide, on a real archive: trace, conflict, quarantine, archive, status."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from archive.journal import DecisionNoted, decode_entry
from archive.sql_catalog import open_catalog
from broker.local import LocalConsumer, LocalPublisher, waiting_attributes
from cli.folder import DataFolder
from cli.main import app
from instances.part10 import split
from runtime.health import HealthServer, socket_path
from runtime.roll import Roll
from schemas.decisions import DiscardQuarantined, ReplayQuarantined, UseVersion, decode_decision
from schemas.message import DECISION_MADE, Lane, Message
from tests.archive.house import House
from tests.archive.samples import SCOPE, attributes, member, unfileable
from tests.datasets import PLANTED, ROOT, dataset_bytes, mr_dataset

UID = f"{ROOT}.1.1.1"
runner = CliRunner()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Two versions of one instance, a second instance, and something that cannot be filed."""
    monkeypatch.setenv("SANSFILM_DATA_DIR", str(tmp_path))
    house = House(tmp_path)
    house.take(member(mr_dataset(1)), member(mr_dataset(2)), unfileable("q-1"))
    house.take(member(mr_dataset(1, seed=9), message_id="other"))
    yield house
    house.close()


def ask(*words: str, code: int = 0) -> Result:
    result = runner.invoke(app, list(words))
    assert result.exit_code == code, result.output
    assert not any(value in result.output for value in PLANTED.values())
    return result  # type: ignore[return-value]


def ask_json(*words: str, code: int = 0) -> Any:
    return json.loads(ask(*words, "--json", code=code).stdout)


@contextmanager
def deciding(house: House, *, has_effect: bool = True) -> Iterator[list[object]]:
    """The part of a worker that executes decisions, with or without effect; gives what it executed."""
    consumer = LocalConsumer(house.folder / "log", lane=Lane.URGENT)
    executed: list[object] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for taken in consumer.take(max_messages=1, max_bytes=1, wait_s=0.02):
                assert taken.message.attributes.type == DECISION_MADE
                decision = decode_decision(taken.message.value)
                if has_effect:
                    house.decide(decision, taken.message.attributes.id)
                consumer.commit([taken.position])
                executed.append(decision)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield executed
    finally:
        stop.set()
        thread.join()
        consumer.close()


def test_trace_tells_everything_of_an_instance(house: House) -> None:
    said = ask_json("trace", UID)
    first, second = said["versions"]
    assert (first["verdict"], first["current"]) == ("new", True)
    assert (second["verdict"], second["current"]) == ("conflict", False)
    for name in ("wire_sha256", "segment", "association_id", "received_at", "stored_transfer_syntax", "calling_ae"):
        assert name in first
    assert first["wire_sha256"] in ask("trace", UID).stdout


def test_trace_of_a_study_and_of_nothing(house: House) -> None:
    assert len(ask_json("trace", f"{ROOT}.1")["versions"]) == 3
    assert "nothing is known of 1.2.3" in ask("trace", "1.2.3", code=2).stderr


def test_trace_finds_an_exam_that_only_conflicts(house: House) -> None:
    """A known SOP Instance UID under another study: the study is not in the list, its sender got Success."""
    study = f"{ROOT}.77"
    house.take(member(mr_dataset(2, seed=5, StudyInstanceUID=study), message_id="elsewhere"))
    (found,) = ask_json("trace", study)["versions"]
    assert (found["verdict"], found["current"], found["study_instance_uid"]) == ("conflict", False, study)
    assert "under another study" in ask("trace", study).stdout
    with deciding(house):
        ask("conflict", "use", found["sop_instance_uid"], found["wire_sha256"])
    of_first = {row["message_id"] for row in ask_json("trace", f"{ROOT}.1")["versions"]}
    assert f"id-{found['sop_instance_uid']}" in of_first  # still said of the study that it came in


def test_trace_finds_a_series_that_only_conflicts(house: House) -> None:
    series = f"{ROOT}.1.99"
    house.take(member(mr_dataset(2, seed=6, SeriesInstanceUID=series), message_id="elsewhere"))
    assert [row["message_id"] for row in ask_json("trace", series)["versions"]] == ["elsewhere"]


def test_trace_finds_what_waits_in_the_log(house: House) -> None:
    publisher = LocalPublisher(house.folder / "log", writer="edge-1")
    given = attributes("w-1", study_uid=f"{ROOT}.5", sop_instance_uid=f"{ROOT}.5.1.1")
    publisher.publish(Message(attributes=given, value=b"a file")).result(10)
    for uid in (f"{ROOT}.5", f"{ROOT}.5.1.1", "w-1"):
        (found,) = ask_json("trace", uid)["waiting"]
        assert (found["id"], found["lane"], found["calling_ae"]) == ("w-1", "routine", "MODALITY")
    assert "acknowledged and not committed yet" in ask("trace", "w-1").stdout
    publisher.close()


def test_trace_finds_what_is_in_quarantine(house: House) -> None:
    assert ask_json("trace", "q-1")["quarantined"][0]["reason"] == "parse_failed"


def test_conflicts_are_listed_and_decided_there_and_back(house: House) -> None:
    rows = ask_json("conflict", "ls")
    assert [row["current"] for row in rows] == [True, False]
    first, second = (row["wire_sha256"] for row in rows)
    with deciding(house) as executed:
        ask("conflict", "use", UID, second[:12])
        assert [row["current"] for row in ask_json("conflict", "ls")] == [False, True]
        ask("conflict", "use", UID, first)
        assert [row["current"] for row in ask_json("conflict", "ls")] == [True, False]
    assert executed == [
        UseVersion(tenant="default", sop_instance_uid=UID, wire_sha256=second),
        UseVersion(tenant="default", sop_instance_uid=UID, wire_sha256=first),
    ]


def test_a_decision_says_who_made_it_and_why(house: House) -> None:
    second = ask_json("conflict", "ls")[1]["wire_sha256"]
    with deciding(house) as executed:
        ask("conflict", "use", UID, second, "--reason", "sent twice by the scanner")
        ask("quarantine", "discard", "q-1", "--reason", "a test")
    assert [one.reason for one in executed] == ["sent twice by the scanner", "a test"]  # type: ignore[attr-defined]
    keys = list(house.store.keys("journal/"))
    noted = [decode_entry(house.store.journal_entry(key)) for key in keys]
    reasons = [one.decision.reason for one in noted if isinstance(one, DecisionNoted)]
    assert reasons == ["sent twice by the scanner", "a test"]


def test_the_user_is_in_the_source_of_a_decision(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "dr müller/../x")
    ask("quarantine", "discard", "q-1", "--wait-s", "0", code=1)
    (waiting,) = waiting_attributes(house.folder / "log")
    assert waiting.source == f"/cli/{socket.gethostname()}/dr_m_ller_.._x"


def test_every_read_leaves_an_access_event(house: House, tmp_path: Path) -> None:
    ask("trace", UID)
    ask("trace", "PLANTED", code=2)
    ask("conflict", "ls")
    ask("quarantine", "show", "q-1")
    ask("archive", "original", UID, "-o", str(tmp_path / "a.dcm"))
    ask("archive", "verify")
    path = house.folder / "logs" / "cli.log"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["service"], one.get("uid", "")) for one in events] == [
        ("trace", UID), ("trace", ""), ("conflict", ""), ("quarantine", ""), ("original", UID), ("verify", ""),
    ]  # fmt: skip
    assert all(one["event"] == "resource_read" and one["principal"] and one["tenant"] == "default" for one in events)
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_access_event_that_cannot_be_written_is_said(house: House) -> None:
    (house.folder / "logs").touch()
    assert "this access is not in" in ask("trace", UID).stderr


def test_a_decision_without_a_worker_is_kept_for_later(house: House) -> None:
    second = ask_json("conflict", "ls")[1]["wire_sha256"]
    result = ask("conflict", "use", UID, second, "--wait-s", "0", code=1)
    assert "recorded and will be executed when sansfilm up runs" in result.stderr
    assert ask_json("status")["lag_messages"]["urgent"] == 1
    with deciding(house):
        ask("conflict", "use", UID, second)


def test_a_decision_that_has_no_effect_is_not_claimed(house: House) -> None:
    second = ask_json("conflict", "ls")[1]["wire_sha256"]
    with deciding(house, has_effect=False):
        assert "another followed it" in ask("conflict", "use", UID, second, code=1).stderr


@pytest.mark.parametrize(("uid", "digest"), [(UID, "abc"), (UID, "0" * 64), ("1.2.3", "0" * 64)])
def test_a_choice_that_names_nothing_is_refused(house: House, uid: str, digest: str) -> None:
    ask("conflict", "use", uid, digest, code=2)
    assert ask_json("status")["lag_messages"].get("urgent", 0) == 0


def test_quarantine_is_listed_shown_saved(house: House, tmp_path: Path) -> None:
    assert [entry["id"] for entry in ask_json("quarantine", "ls")] == ["q-1"]
    assert "parse_failed" in ask("quarantine", "ls").stdout
    assert "it cannot be walked" in ask("quarantine", "show", "q-1").stdout
    ask("quarantine", "show", "q-1", "-o", str(tmp_path / "bytes"))
    assert (tmp_path / "bytes").read_bytes() == b"no data set"
    assert "exists already" in ask("quarantine", "show", "q-1", "-o", str(tmp_path / "bytes"), code=2).stderr
    assert "there is no quarantine entry q-2" in ask("quarantine", "show", "q-2", code=2).stderr


@pytest.mark.parametrize(("verb", "kind"), [("replay", ReplayQuarantined), ("discard", DiscardQuarantined)])
def test_quarantine_is_decided_once(
    house: House, verb: str, kind: type[ReplayQuarantined | DiscardQuarantined]
) -> None:
    with deciding(house) as executed:
        state = ask_json("quarantine", verb, "q-1")["state"]
    assert executed == [kind(tenant="default", quarantine_id="q-1")]
    assert state in ("replayed", "discarded")
    assert f"closed already: {state}" in ask("quarantine", verb, "q-1", code=2).stderr
    assert ask("quarantine", "ls").stdout == "nothing is in quarantine\n"
    assert ask_json("quarantine", "ls", "--all")[0]["state"] == state


def test_what_was_discarded_may_be_judged_again(house: House) -> None:
    with deciding(house):
        ask("quarantine", "discard", "q-1")
        assert ask_json("quarantine", "replay", "q-1")["state"] == "replayed"
    assert ask_json("status")["archive"]["quarantined"] == 0
    with deciding(house, has_effect=False):
        assert "closed already: replayed" in ask("quarantine", "replay", "q-1", code=2).stderr


def test_a_replay_that_changes_nothing_says_so(house: House) -> None:
    with deciding(house, has_effect=False):
        result = ask("quarantine", "replay", "q-1", code=1)
    assert result.stdout == "q-1: open: it still cannot be filed (parse_failed: it cannot be walked)\n"
    assert ask_json("quarantine", "ls")[0]["state"] == "open"


def test_an_original_comes_back_exactly(house: House, tmp_path: Path) -> None:
    ask("archive", "original", UID, "-o", str(tmp_path / "a.dcm"))
    assert bytes(split((tmp_path / "a.dcm").read_bytes())[1]) == dataset_bytes(mr_dataset(1))
    second = ask_json("conflict", "ls")[1]["wire_sha256"]
    ask("archive", "original", UID, "--version", second[:10], "-o", str(tmp_path / "b"), "--dataset-only")
    assert (tmp_path / "b").read_bytes() == dataset_bytes(mr_dataset(1, seed=9))
    assert runner.invoke(app, ["archive", "original", UID, "--dataset-only"]).stdout_bytes == dataset_bytes(
        mr_dataset(1)
    )


def test_verify_is_clean_until_a_byte_changes(house: House) -> None:
    assert ask_json("archive", "verify")["clean"] is True
    location = house.reader.versions(SCOPE, UID)[0][0].location
    (path,) = house.folder.rglob(Path(location.segment).name)
    content = bytearray(path.read_bytes())
    content[location.offset + location.size_bytes // 2] ^= 1
    path.write_bytes(content)
    said = ask_json("archive", "verify", code=1)
    assert said["clean"] is False
    assert UID in {finding["sop_instance_uid"] for finding in said["findings"]}
    assert "NOT all as received" in ask("archive", "verify", code=1).stdout


def test_a_missing_catalog_is_no_empty_archive(house: House) -> None:
    house.catalog.close()
    shutil.rmtree(house.catalog_path.parent)
    for words in (("archive", "verify"), ("trace", UID), ("quarantine", "ls"), ("conflict", "ls")):
        assert "stop sansfilm and run sansfilm archive rebuild" in ask(*words, code=2).stderr
    assert ask_json("status", code=1)["catalog_missing"] is True
    assert "missing: stop sansfilm and run sansfilm archive rebuild" in ask("status", code=1).stdout
    assert ask_json("archive", "rebuild")["clean"] is True
    assert ask_json("archive", "verify")["versions"] == 3
    house.catalog = open_catalog(house.catalog_path)


def test_rebuild_gives_the_same_answers(house: House) -> None:
    before = (ask_json("conflict", "ls"), ask_json("status")["archive"], ask_json("quarantine", "ls"))
    house.catalog.close()
    said = ask_json("archive", "rebuild")
    assert said["clean"] is True
    after = (ask_json("conflict", "ls"), ask_json("status")["archive"], ask_json("quarantine", "ls"))
    assert before[:2] == after[:2]
    assert [entry["id"] for entry in before[2]] == [entry["id"] for entry in after[2]]


def test_rebuild_needs_the_folder_to_itself(house: House, tmp_path: Path) -> None:
    with DataFolder(tmp_path):
        assert "sansfilm runs already on the folder" in ask("archive", "rebuild", code=2).stderr


def test_status_of_a_resting_archive(house: House) -> None:
    said = ask_json("status", "--wait-drained", "--timeout-s", "0")
    assert said["running"] is False
    assert said["processes"] == {}
    assert (said["archive"]["instances"], said["archive"]["conflicts"]) == (2, 1)
    shown = ask("status").stdout
    assert "nothing runs on this folder" in shown
    assert "free of" in shown


@pytest.mark.parametrize("words", [("quarantine", "show", "q-1"), ("archive", "original", UID)])
def test_a_place_that_cannot_be_written_is_one_sentence(house: House, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = ask(*words, "--output", str(tmp_path / "no" / "such" / "folder"), code=2)
    assert "cannot be written: No such file or directory" in result.output


def test_a_trace_of_no_uid_is_refused(house: House) -> None:
    assert "give the UID" in ask("trace", "", code=2).output


def test_a_process_that_is_missing_is_shown_and_fails(house: House) -> None:
    roll = Roll(house.folder / "run", ["edge-0", "worker-0"])
    edge = HealthServer(house.folder / "run", "edge")
    roll.restarted("worker-0")
    said = ask_json("status", code=1)
    assert (said["missing"], said["restarts"]["worker-0"]) == (["worker-0"], 1)
    assert "does not run" in ask("status", code=1).stdout
    worker = HealthServer(house.folder / "run", "worker")
    assert ask_json("status")["missing"] == []
    for one in (roll, edge, worker):
        one.close()


def test_a_process_that_hangs_is_shown(house: House) -> None:
    path = socket_path(house.folder / "run", "worker", 0)
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hanging:
        hanging.bind(str(path))
        hanging.listen()
        assert ask_json("status")["hanging"] == ["worker-0"]
        assert "does not answer" in ask("status").output


def test_without_a_folder_there_is_one_sentence(tmp_path: Path) -> None:
    result = runner.invoke(app, ["status", "--data-dir", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert (
        result.stderr == f"sansfilm: there is no data folder {tmp_path / 'none'}: set SANSFILM_DATA_DIR or --data-dir\n"
    )
