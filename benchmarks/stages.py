"""What each stage costs an instance, alone: ``python -m benchmarks.stages``. Their sum stands beside the whole.

CPU milliseconds (user and system, all threads) for one 0.5 MB instance, median of batches; the same functions as the
product calls, in its order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from archive.catalog import KnownVersion
from archive.local_store import LocalSegmentStore
from archive.segment_store import AdoptedMember, PreparedMember
from archive.sql_catalog import open_catalog
from benchmarks.exam import write_exams
from broker.local.consumer import LocalConsumer
from broker.local.publisher import LocalPublisher
from broker.log import Taken
from instances.description import describe
from instances.head import HEAD_BYTES, read_head
from instances.part10 import split
from instances.transcode import transcode
from runtime.clock import SystemClock, rfc3339
from schemas.message import INSTANCE_RECEIVED, Lane, Message, MessageAttributes
from schemas.record import PlacedRecord
from segments.checksum import crc32c_hex
from workers.preparation import AlreadyHeld, Judged, Policy, judge

_POLICIES = {name: Policy(transcode=name, transcode_max_bytes=2**28) for name in ("keep", "htj2k")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every stage and print milliseconds of CPU per instance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exam", default=None)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = Path(folder)
        paths = write_exams(Path(options.exam or work / "exam"), instances=options.instances)[: options.instances]
        rounds = [_round(work / str(number), paths) for number in range(options.rounds)]
    medians = {stage: round(statistics.median(one[stage] for one in rounds), 3) for stage in rounds[0]}
    print(json.dumps(medians, indent=2))


def _round(work: Path, paths: Sequence[Path]) -> dict[str, float]:
    files = [path.read_bytes() for path in paths]
    datasets = [split(file) for file in files]
    each = len(files)
    costs: dict[str, float] = {}

    def stage(name: str, work_of: Callable[[int], object]) -> None:
        costs[name] = _cpu_ms(lambda: [work_of(number) for number in range(each)]) / each

    stage("head", lambda n: read_head(datasets[n][1][:HEAD_BYTES], datasets[n][0].transfer_syntax))
    stage("crc32c", lambda n: crc32c_hex([files[n]]))
    messages = [_message(file) for file in files]
    taken: list[Taken] = []
    costs["log append + sync"] = _cpu_ms(lambda: _publish(work, messages)) / each
    costs["log take"] = _cpu_ms(lambda: taken.extend(_take(work))) / each
    stage("sha-256", lambda n: hashlib.sha256(datasets[n][1]).hexdigest())
    descriptions = [describe(dataset, meta.transfer_syntax) for meta, dataset in datasets]
    stage("describe", lambda n: describe(datasets[n][1], datasets[n][0].transfer_syntax))
    stage(
        "htj2k + proof",
        lambda n: transcode(datasets[n][1], datasets[n][0].transfer_syntax, descriptions[n], max_bytes=2**28),
    )
    for policy in _POLICIES:
        _archive(work / policy, policy, taken, costs)
    return costs


def _archive(work: Path, policy: str, taken: Sequence[Taken], costs: dict[str, float]) -> None:
    judged: list[Judged] = []
    store, catalog = LocalSegmentStore(work / "archive"), open_catalog(work / "catalog.sqlite")
    placed: list[PlacedRecord] = []

    def prepare() -> None:
        judged.extend(judge(one.message.attributes, one.message.value, {}, _POLICIES[policy]) for one in taken)

    def put() -> None:
        members: list[PreparedMember | AdoptedMember] = [one for one in judged if not isinstance(one, AlreadyHeld)]
        locations = store.put("default", members).locations
        pairs = zip(members, locations, strict=True)
        placed.extend(PlacedRecord(record=member.record, location=location) for member, location in pairs)

    costs[f"judge ({policy})"] = _cpu_ms(prepare) / len(taken)
    costs[f"put ({policy})"] = _cpu_ms(put) / len(taken)
    commit = _cpu_ms(lambda: catalog.commit_batch(placed, equal=_never_equal, on_conflict=lambda *_: None))
    costs[f"commit ({policy})"] = commit / len(taken)
    catalog.close()
    store.close()


def _never_equal(_: PlacedRecord, __: KnownVersion) -> bool:
    return False


def _publish(work: Path, messages: Sequence[Message]) -> None:
    publisher = LocalPublisher(work / "log", writer="bench")
    for message in messages:
        publisher.publish(message).result()
    publisher.close()


def _take(work: Path) -> list[Taken]:
    consumer = LocalConsumer(work / "log", lane=Lane.ROUTINE)
    taken: list[Taken] = []
    while more := consumer.take(max_messages=256, max_bytes=2**26, wait_s=0):
        taken.extend(more)
    consumer.close()
    return taken


def _message(file: bytes) -> Message:
    clock = SystemClock()
    meta, dataset = split(file)
    head = read_head(dataset[:HEAD_BYTES], meta.transfer_syntax)
    attributes = MessageAttributes(
        id=clock.new_id(),
        type=INSTANCE_RECEIVED,
        source="/edge/bench",
        time=rfc3339(clock.now()),
        tenant="default",
        lane=Lane.ROUTINE,
        study_uid=head.study_instance_uid,
        sop_class_uid=head.sop_class_uid,
        sop_instance_uid=head.sop_instance_uid,
        transfer_syntax=meta.transfer_syntax,
        size_bytes=len(file),
        crc32c=crc32c_hex([file]),
    )
    return Message(attributes=attributes, value=file)


def _cpu_ms(work: Callable[[], object]) -> float:
    begin_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - begin_ns) / 1e6


if __name__ == "__main__":
    main()
