"""`sansfilm replay` on a real Kafka: a no-op where all is well, a repair where it is not, a shadow to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ImplicitVRLittleEndian
from sqlalchemy import func, select

from archive import schema
from archive.filing import member_of
from archive.local_store import LocalSegmentStore
from archive.opening import open_catalog_reader, open_worker_catalog
from archive.original import original
from broker.kafka import KafkaConsumer, KafkaPublisher
from broker.kafka.topics import LogTopics
from broker.opening import kafka_configuration, waiting_messages
from cli.replay import Asked, _opened, parse_mark, run_replay
from region.kafka import KafkaBroker
from runtime.errors import Fatal, Misconfigured, Retryable
from runtime.retries import Stopped
from schemas.decisions import DiscardQuarantined
from schemas.message import Lane, Message
from schemas.reasons import QuarantineReason
from schemas.record import PlacedRecord, QuarantineRecord
from tests.datasets import PLANTED, dataset_bytes, mr_dataset, part10
from tests.region.kafka import fresh
from tests.waiting import until
from tests.workers.pool import TENANT, WAIT_S, Pool, decision, message
from workers.replay import LiveReplay, Selection
from workers.shadow import shadow_settings

ROOT = Path(__file__).parents[2]


class Region(Pool):
    """One data folder and topics of its own; `work` archives, `lose` commits positions of what nobody archived."""

    def __init__(self, folder: Path, broker: KafkaBroker, **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        log = fresh(broker, partitions=2)
        super().__init__(folder, kafka_bootstrap=log.bootstrap, kafka_topic_prefix=log.prefix, **settings)
        self.log = kafka_configuration(self.settings)
        if self.settings.catalog_url.get_secret_value():
            self.reader.close()
            self.reader = open_catalog_reader(self.settings)  # type: ignore[assignment]

    def publish(self, *messages: Message) -> None:
        with closing(KafkaPublisher(self.log)) as publisher:
            for future in [publisher.publish(one) for one in messages]:
                future.result(WAIT_S)

    def left(self) -> int:
        return sum(waiting_messages(self.settings).values())

    def lose(self, *messages: Message, lane: Lane = Lane.ROUTINE) -> None:
        self.publish(*messages)
        taken: list[Any] = []
        with closing(KafkaConsumer(self.log, lane=lane)) as worker:

            def take() -> bool:
                taken.extend(worker.take(max_messages=100, max_bytes=10**8, wait_s=0.1))
                return len(taken) >= len(messages)

            until(take, timeout_s=WAIT_S)
            worker.commit([one.position for one in taken])

    def state(self) -> dict[str, object]:
        """Whatever a replay could change: rows of every table, counters, segments and journal."""
        with closing(open_worker_catalog(self.settings)) as catalog, catalog._engine.connect() as connection:
            rows = {
                table.name: connection.scalar(select(func.count()).select_from(table))
                for table in schema.metadata.sorted_tables
            }
        with closing(LocalSegmentStore(self.settings.archive_dir)) as store:
            keys = set(store.keys())
        return {"rows": rows, "counters": dict(self.reader.counters(TENANT)), "keys": keys}

    def original_of(self, number: int) -> bytes:
        ((version, record),) = self.versions(mr_dataset(number))
        with closing(LocalSegmentStore(self.settings.archive_dir)) as store:
            return original(store, record, version.location)


@pytest.fixture
def make_region(kafka: KafkaBroker, tmp_path: Path) -> Any:
    made: list[Region] = []

    def make(**settings: object) -> Region:
        made.append(Region(tmp_path / "live", kafka, **settings))
        return made[-1]

    yield make
    for one in made:
        one.reader.close()


@pytest.fixture
def region(make_region: Callable[..., Region]) -> Region:
    return make_region()


@pytest.fixture
def replay(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Replays everything, or what is asked for; gives the exit code and what was told."""

    def run(region: Region, since: str = "0", **asked: Any) -> tuple[int, dict[str, Any]]:
        code = run_replay(region.settings, Asked(since=since, **asked), as_json=True)
        printed = capsys.readouterr().out
        assert not any(planted in printed for planted in PLANTED.values())
        return code, json.loads(printed[printed.index('{\n  "clean"') :])

    return run


Replay = Callable[..., tuple[int, dict[str, Any]]]


def of(told: dict[str, Any], lane: Lane = Lane.ROUTINE) -> dict[str, int]:
    return dict(told["outcomes"].get(lane.value, {}))


# ---- the live archive ----


def test_what_is_archived_already_is_left_alone(region: Region, replay: Replay) -> None:
    bad = message(b"no DICOM file at all", sop_instance_uid="1.2.3")
    other = mr_dataset(1, seed=7)
    large = region.claim(mr_dataset(3))
    region.work(
        *(message(mr_dataset(1)), message(mr_dataset(1)), message(other), message(part10(mr_dataset(2))), bad, large),
        message(part10(mr_dataset(1), ImplicitVRLittleEndian), sop_instance_uid=str(mr_dataset(1).SOPInstanceUID)),
        decision(DiscardQuarantined(tenant=TENANT, quarantine_id=bad.attributes.id, reason="nothing in it")),
    )
    until(lambda: large.attributes.data_ref not in region.segments())  # rewritten, and removed
    before = region.state()
    for dry_run in (True, False):
        code, told = replay(region, dry_run=dry_run)
        assert (code, told["clean"]) == (0, True)
        assert of(told) == {"same": 6, "quarantined_already": 1, "decision": 1}
    assert region.state() == before


def test_what_was_missing_is_found_and_committed(region: Region, replay: Replay) -> None:
    bad, gone = message(b"no DICOM file at all", sop_instance_uid="1.2.3"), region.claim(mr_dataset(9))
    region.path(gone.attributes.data_ref).unlink()
    urgent = message(mr_dataset(4), calling_ae="CT_ER2", lane=Lane.URGENT)
    region.lose(
        *(message(mr_dataset(1), calling_ae="CT_ER1"), message(mr_dataset(1), calling_ae="CT_ER1")),
        *(message(mr_dataset(2), calling_ae="MR"), message(mr_dataset(2, seed=7), calling_ae="MR")),
        *(region.claim(mr_dataset(3)), bad, gone),
    )
    region.lose(urgent, lane=Lane.URGENT)
    region.publish(message(mr_dataset(5)))  # the workers' still
    assert region.counts() == (0, 0, 0)

    code, told = replay(region, dry_run=True)
    assert (code, told["waiting"], told["differing"]) == (1, 1, 8)
    assert region.counts() == (0, 0, 0)

    code, told = replay(region, selection=Selection(calling_ae=("CT_ER*",)), limit=1)
    assert (code, of(told), of(told, Lane.URGENT)) == (1, {"new": 1, "same": 1}, {"new": 1})
    assert (told["differing"], len(told["differ"]), region.counts()) == (2, 1, (2, 2, 0))

    code, told = replay(region, topic="routine")
    assert of(told) == {"same": 2, "new": 2, "conflict": 1, "quarantined": 1, "unreadable": 1}
    assert region.counts() == (4, 5, 1)
    assert region.original_of(3) == dataset_bytes(mr_dataset(3))
    assert {one["sop_instance_uid"] for one in told["differ"] if one["outcome"] == "unreadable"} == {
        gone.attributes.sop_instance_uid
    }

    code, told = replay(region, topic=region.log.topic(Lane.ROUTINE))
    assert (code, of(told)) == (1, {"same": 5, "quarantined_already": 1, "unreadable": 1})
    assert region.left() == 1


def test_bytes_that_were_lost_are_there_again(region: Region, replay: Replay) -> None:
    region.work(message(mr_dataset(1)))
    ((version, _),) = region.versions(mr_dataset(1))
    region.path(version.location.segment).unlink()
    assert of(replay(region, dry_run=True)[1]) == {"lost": 1}
    assert of(replay(region)[1]) == {"lost": 1}
    assert region.original_of(1) == dataset_bytes(mr_dataset(1))
    assert replay(region)[0] == 0


def test_a_claim_check_that_was_filed_and_lost_is_told_and_is_no_quarantine(
    make_region: Callable[..., Region], replay: Replay, tmp_path: Path
) -> None:
    region = make_region(transcode="keep")
    large = region.claim(mr_dataset(1))
    region.work(large)
    region.path(large.attributes.data_ref).unlink()
    for asked in ({"dry_run": True}, {}, {"shadow": tmp_path / "shadow"}):
        code, told = replay(region, **asked)
        assert (code, of(told), told["differ"][0]["why"]) == (1, {"lost": 1}, "its stored bytes are gone")
    region.work(large)  # given again by the log
    assert region.counts() == (1, 1, 0)


def test_workers_of_a_server_catalog_may_run_meanwhile(
    make_region: Callable[..., Region], catalog_url: str, replay: Replay
) -> None:
    region = make_region(catalog_url=catalog_url)
    region.lose(message(mr_dataset(1)))
    with region.working():
        region.publish(message(mr_dataset(2)))
        assert of(replay(region)[1])["new"] == 1
        until(lambda: region.left() == 0)
        before = region.state()
        assert (replay(region)[0], region.state()) == (0, before)
    assert region.counts() == (2, 2, 0)


# ---- a shadow ----


def test_a_shadow_equals_the_live_archive(region: Region, replay: Replay, tmp_path: Path) -> None:
    bad, killer = message(b"no DICOM file", sop_instance_uid="1.2.3"), message(mr_dataset(8), calling_ae="KILLER")
    rewritten = region.claim(mr_dataset(3))
    region.work(message(mr_dataset(1)), message(mr_dataset(2)), bad, rewritten)
    held_back(region, killer, QuarantineReason.KILLS_WORKER)
    until(lambda: rewritten.attributes.data_ref not in region.segments())
    before = region.state()

    for _ in range(2):  # the second time it is all there
        code, told = replay(region, shadow=tmp_path / "shadow", transcode="keep")
        assert (code, told["stored_otherwise"]) == (0, 3)
        assert of(told) == {"same": 3, "quarantined_already": 2}
    assert region.state() == before
    shadow = Pool(tmp_path / "shadow")
    assert shadow.counts() == (3, 3, 2)
    with closing(LocalSegmentStore(shadow.settings.archive_dir)) as store:
        for number in (1, 2, 3):
            ((there, of_shadow),) = shadow.versions(mr_dataset(number))
            ((_, of_live),) = region.versions(mr_dataset(number))
            assert of_shadow.stored_transfer_syntax != of_live.stored_transfer_syntax
            assert of_shadow.wire_sha256 == of_live.wire_sha256
            assert original(store, of_shadow, there.location) == region.original_of(number)
    reasons = {entry["id"]: entry["reason"] for entry in shadow.quarantined()}
    assert reasons == {
        bad.attributes.id: QuarantineReason.PARSE_FAILED,
        killer.attributes.id: QuarantineReason.KILLS_WORKER,
    }
    shadow.reader.close()


def held_back(region: Region, one: Message, reason: QuarantineReason) -> None:
    """Quarantined in the live archive as another program, or three deaths, would have it."""
    record = QuarantineRecord(attributes=one.attributes, reason=reason, detail="in a test")
    with (
        closing(LocalSegmentStore(region.settings.archive_dir)) as store,
        closing(open_worker_catalog(region.settings)) as catalog,
    ):
        put = store.put(TENANT, [member_of(record, [one.value])])
        placed = PlacedRecord(record=record, location=put.locations[0])
        catalog.commit_batch([placed], equal=lambda *_: False, on_conflict=lambda *_: None, segments=[put.key])
    region.lose(one)


def test_a_shadow_tells_what_differs(region: Region, replay: Replay, tmp_path: Path) -> None:
    reused = mr_dataset(2, seed=7)
    unread = message(mr_dataset(4))
    region.work(message(mr_dataset(2)), message(mr_dataset(5)))
    region.lose(message(mr_dataset(1)), message(reused), message(b"no DICOM", sop_instance_uid="1.2.3"))
    held_back(region, unread, QuarantineReason.PARSE_FAILED)
    before = region.state()
    code, told = replay(region, shadow=tmp_path / "shadow")
    assert (code, of(told)) == (1, {"same": 2, "new": 1, "conflict": 1, "quarantined": 2})
    why = {one["message_id"]: one["why"] for one in told["differ"]}
    assert "filed in the shadow" in why[unread.attributes.id]
    assert region.state() == before


def test_a_shadow_has_a_folder_of_its_own(region: Region, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    live = region.settings.data_dir
    for folder, sentence in (
        (live, "live archive's"),
        (live / ".." / "live" / "archive" / "shadow", "live archive's"),
        (tmp_path, "live archive's"),
        (tmp_path / "full", "holds something"),
        (tmp_path / "full" / "thesis.txt", "cannot be used"),
    ):
        with pytest.raises(Misconfigured, match=sentence):
            shadow_settings(region.settings, folder, version="1")


def test_a_shadow_is_private_and_of_one_policy_and_version(region: Region, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir(mode=0o755)
    own = shadow_settings(region.settings, folder, version="1", transcode="keep")
    assert (own.transcode, own.data_dir, folder.stat().st_mode & 0o777) == ("keep", folder, 0o700)
    folder.chmod(0o755)
    kept = region.settings.model_copy(update={"transcode": "keep"})
    assert shadow_settings(kept, folder, version="1") == own
    assert folder.stat().st_mode & 0o777 == 0o700
    for version, transcode in (("1", "htj2k"), ("2", "keep")):
        with pytest.raises(Misconfigured, match="use another folder for Policy"):
            shadow_settings(region.settings, folder, version=version, transcode=transcode)  # type: ignore[arg-type]


def test_a_shadow_that_is_used_again_says_so_and_leaves_room(region: Region, replay: Replay, tmp_path: Path) -> None:
    region.work(message(mr_dataset(1)), message(mr_dataset(1)))
    seen = [replay(region, shadow=tmp_path / "shadow")[1] for _ in range(2)]
    assert [(of(told), told["there_already"]) for told in seen] == [({"same": 2}, 0), ({"same": 2}, 1)]
    region.settings = region.settings.model_copy(update={"disk_reserve_bytes": 1 << 60})
    with pytest.raises(Fatal, match="SANSFILM_DISK_RESERVE_BYTES"):
        replay(region, shadow=tmp_path / "full")


def test_a_shadow_compares_what_is_encoded_anew_by_its_own_content(
    region: Region, replay: Replay, tmp_path: Path
) -> None:
    uid = str(mr_dataset(1).SOPInstanceUID)
    region.lose(message(mr_dataset(1, seed=7)))
    region.work(message(mr_dataset(1)), message(part10(mr_dataset(1), ImplicitVRLittleEndian), sop_instance_uid=uid))
    assert of(replay(region, shadow=tmp_path / "shadow")[1]) == {"same": 2, "conflict": 1}


# ---- the command ----


def test_the_command_says_it_in_words_and_by_its_exit_code(region: Region, capsys: pytest.CaptureFixture[str]) -> None:
    region.work(message(mr_dataset(1)))
    region.lose(message(mr_dataset(2)))
    variables = {"DATA_DIR": region.settings.data_dir, "KAFKA_BOOTSTRAP": region.log.bootstrap}
    given = {**variables, "KAFKA_TOPIC_PREFIX": region.log.prefix}
    environment = os.environ | {f"SANSFILM_{name}": str(value) for name, value in given.items()}

    def say(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "cli.main", "replay", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    hour = timedelta(hours=1)
    since, until_ = ((datetime.now(UTC) + by).isoformat() for by in (-hour, hour))
    code, said = say("--from", since, "--to", until_)
    assert (code, "new: was missing" in said, str(mr_dataset(2).SOPInstanceUID) in said) == (1, True, True)
    topics = LogTopics(region.log)
    (partition,) = [one for one, reach in topics.reach(Lane.ROUTINE).items() if reach.end]
    topics.delete_before({partition: 1})
    code, said = say("--from", "0", "--partial-ok", "--json")
    told = json.loads(said)
    assert (code, told["clean"], told["deleted"], told["differing"]) == (0, False, 1, 0)
    assert run_replay(region.settings, Asked(since="0"), as_json=False) == 1
    assert "NOT in the log any more" in capsys.readouterr().out
    alone = region.settings.model_copy(update={"kafka_bootstrap": ""})
    with pytest.raises(Misconfigured, match="deleted as soon as they are committed"):
        run_replay(alone, Asked(since="0"), as_json=False)


def test_the_verdict_says_no_more_than_what_was_seen(
    region: Region, replay: Replay, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = message(b"no DICOM file", sop_instance_uid="1.2.3")
    region.work(message(mr_dataset(1)), bad)
    assert of(replay(region)[1]) == {"same": 1, "quarantined_already": 1}
    nobody = Selection(calling_ae=("NOBODY",))

    def say(**asked: Any) -> tuple[int, str]:
        code = run_replay(region.settings, Asked(since="0", **asked), as_json=False)
        return code, capsys.readouterr().out.splitlines()[-1]

    code, said = say()
    assert (code, "everything was archived but 1 in quarantine, and nothing" in said) == (0, True)
    nothing = "nothing was replayed: no message of the stretch was selected"
    assert (replay(region, selection=nobody)[1]["clean"], say(selection=nobody)) == (False, (1, nothing))
    topics = LogTopics(region.log)
    reach = topics.reach(Lane.ROUTINE)
    topics.delete_before({one: 1 for one, found in reach.items() if found.end})
    if sum(found.end - 1 for found in reach.values() if found.end):
        code, said = say(partial_ok=True)
        assert (code, "what was replayed was archived" in said) == (0, True)
    topics.delete_before({one: found.end for one, found in reach.items() if found.end})
    assert say(partial_ok=True) == (1, nothing)


def test_an_interrupt_ends_what_waits_for_a_fault_to_pass(region: Region) -> None:
    began = threading.Event()

    def away() -> None:
        began.set()
        raise Retryable("PostgreSQL is away")

    with pytest.raises(KeyboardInterrupt), _opened(region.settings, Asked(since="0")) as opened:
        assert isinstance(opened, LiveReplay)
        waiting = opened.threads.submit(opened.patience.lasting, "judge", away)
        until(began.is_set)
        raise KeyboardInterrupt
    assert isinstance(waiting.exception(WAIT_S), Stopped)


def test_ends_are_written_as_times_or_as_trace_shows_positions() -> None:
    assert parse_mark("2026-11-24T14:00+01:00", "--from") == (datetime(2026, 11, 24, 13, tzinfo=UTC), "")
    naive, _ = parse_mark("2026-11-24", "--from")
    assert naive == datetime(2026, 11, 24).astimezone()
    assert parse_mark("0", "--from") == (0, "")
    assert parse_mark("3@1200, 4@80", "--from") == ({3: 1200, 4: 80}, "")
    assert parse_mark("sansfilm.urgent/3@1200", "--from") == ({3: 1200}, "sansfilm.urgent")
    for wrong in ("14:00", "yesterday", "3@", "3@1,x", "a/1@2,b/1@2", "1e400", "9999999999999999999"):
        with pytest.raises(Misconfigured, match="--from is neither"):
            parse_mark(wrong, "--from")
