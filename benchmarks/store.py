"""Segment stores beside each other and beside the machine: ``python -m benchmarks.store``.

Puts of whole batches, ranged reads of one member, and what a claim check costs its sender after the last byte: in a
folder, and on a real S3 server (SeaweedFS) on loopback, in turn in each round. The folder syncs; SeaweedFS writes to
the page cache: a figure of it is one of protocol and copying, not of a disk. CPU is that of this process alone, the
server's apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from archive.local_store import LocalSegmentStore
from archive.s3_access import S3Access
from archive.s3_claim_check import S3Uploads
from archive.s3_store import S3SegmentStore
from archive.segment_store import ClaimCheck, PreparedMember, SegmentStore
from benchmarks.ceilings import disk_sync, loopback
from ingest.large import LocalClaimCheck
from region.seaweedfs import WORKER, SeaweedS3
from runtime.clock import SystemClock, rfc3339
from schemas.message import INSTANCE_RECEIVED, Lane, MessageAttributes
from schemas.reasons import QuarantineReason
from schemas.record import MemberLocation, QuarantineRecord
from segments.checksum import crc32c_hex
from segments.disk import SystemDisk

MIB = 1024 * 1024
TENANT = "default"
_CHUNK_BYTES = 128 * 1024

Figures = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print medians over the rounds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--segments", type=int, default=8, help="put in each round")
    parser.add_argument("--segment-mib", type=int, default=64)
    parser.add_argument("--member-kib", type=int, default=512)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--claim-mib", type=int, default=256)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, SeaweedS3(Path(folder) / "seaweed") as server:
        rounds = [_round(Path(folder) / str(number), server, options) for number in range(options.rounds)]
        ceilings = {**disk_sync(Path(folder), writes=20, size_bytes=options.segment_mib * MIB), **loopback()}
    medians = {
        place: {name: round(statistics.median(one[place][name] for one in rounds), 2) for name in figures}
        for place, figures in rounds[0].items()
    }
    print(json.dumps({"context": _context(options), "ceilings": ceilings, **medians}, indent=2))


def _round(folder: Path, server: SeaweedS3, options: argparse.Namespace) -> dict[str, Figures]:
    folder.mkdir()
    access = _access(server, folder.name)
    uploads = S3Uploads(access, object_max_bytes=4096 * MIB)
    clock = SystemClock()

    def local_check() -> ClaimCheck:
        return LocalClaimCheck(SystemDisk(), folder / "archive", TENANT, clock)

    def carried(check: ClaimCheck) -> None:
        uploads.put_file(check.key, folder / "archive" / "segments" / check.key)

    stores: dict[str, SegmentStore] = {"folder": LocalSegmentStore(folder / "archive"), "s3": S3SegmentStore(access)}
    figures = {place: _store(store, options) for place, store in stores.items()}
    figures["folder"] |= _claim(local_check, options)
    figures["s3"] |= _claim(lambda: uploads.open_claim_check(TENANT), options)
    figures["spooled, then s3"] = _claim(local_check, options, carried)
    return figures


def _store(store: SegmentStore, options: argparse.Namespace) -> Figures:
    batch = _batch(options.segment_mib * MIB, options.member_kib * 1024)
    store.put(TENANT, batch[:1])  # folders and connections are there
    spans_s, locations = [], list[MemberLocation]()
    begin_cpu_s = time.process_time()
    for _ in range(options.segments):
        begin_s = time.perf_counter()
        locations += store.put(TENANT, batch).locations
        spans_s.append(time.perf_counter() - begin_s)
    put_cpu_s = time.process_time() - begin_cpu_s
    wanted = random.Random(1).choices(locations, k=options.reads)
    return {
        "put_mib_per_s": options.segment_mib * options.segments / sum(spans_s),
        "put_ms_median": statistics.median(spans_s) * 1e3,
        "put_cpu_ms_per_mib": put_cpu_s * 1e3 / (options.segment_mib * options.segments),
        **_reads(store, wanted, threads=1),
        **_reads(store, wanted, threads=8),
    }


def _reads(store: SegmentStore, wanted: Sequence[MemberLocation], *, threads: int) -> Figures:
    def read(location: MemberLocation) -> float:
        begin_s = time.perf_counter()
        store.read(location)
        return time.perf_counter() - begin_s

    with ThreadPoolExecutor(threads) as pool:
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        spans_s = list(pool.map(read, wanted))
        whole_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    return {
        f"reads_per_s_{threads}": len(wanted) / whole_s,
        f"read_ms_median_{threads}": statistics.median(spans_s) * 1e3,
        f"read_cpu_ms_{threads}": cpu_s * 1e3 / len(wanted),
    }


def _claim(
    begin: Callable[[], ClaimCheck], options: argparse.Namespace, then: Callable[[ClaimCheck], None] | None = None
) -> Figures:
    """A large instance that comes as fast as it is taken; `then` is what has to follow before success is said."""
    chunk = os.urandom(_CHUNK_BYTES)
    check = begin()
    begin_s = time.perf_counter()
    for _ in range(options.claim_mib * MIB // _CHUNK_BYTES):
        check.write(chunk)
    last_byte_s = time.perf_counter()
    check.finish("bench", {})
    if then is not None:
        then(check)
    end_s = time.perf_counter()
    return {
        "claim_mib_per_s": options.claim_mib / (end_s - begin_s),
        "claim_ms_after_last_byte": (end_s - last_byte_s) * 1e3,
    }


def _batch(segment_bytes: int, member_bytes: int) -> list[PreparedMember]:
    """Members of random bytes; each has its CRC32C already, as the worker's have."""
    count = max(1, segment_bytes // member_bytes)
    return [_member(number, os.urandom(member_bytes)) for number in range(count)]


def _member(number: int, content: bytes) -> PreparedMember:
    clock = SystemClock()
    attributes = MessageAttributes(
        id=clock.new_id(),
        type=INSTANCE_RECEIVED,
        source="/edge/bench",
        time=rfc3339(clock.now()),
        tenant=TENANT,
        lane=Lane.ROUTINE,
        size_bytes=len(content),
    )
    record = QuarantineRecord(
        attributes=attributes, reason=QuarantineReason.PARSE_FAILED, detail="random bytes", wire_sha256=""
    )
    provenance = {**attributes.to_headers(), "crc32c": crc32c_hex([content])}
    return PreparedMember(record=record, name=f"unnamed/{number}", provenance=provenance, parts=[content])


def _access(server: SeaweedS3, prefix: str) -> S3Access:
    return S3Access(
        endpoint=server.endpoint,
        region="us-east-1",
        bucket="archive",
        prefix=prefix,
        access_key_id=WORKER.access_key_id,
        secret_access_key=WORKER.secret_access_key,
        connect_timeout_s=5.0,
        read_timeout_s=15.0,
        request_timeout_s=120.0,
        retries_max=2,
    )


def _context(options: argparse.Namespace) -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    host = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    return {"host": host, "commit": commit.stdout.strip(), "parameters": vars(options)}


if __name__ == "__main__":
    main()
