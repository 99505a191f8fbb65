#!/usr/bin/env python3
"""Restores what an archive received, without the software that wrote it.

    python3 restore.py list    segments/**/*.tar
    python3 restore.py verify  segments/**/*.tar
    python3 restore.py restore --to FOLDER segments/**/*.tar

Needs Python 3.8 or newer. Members that were compressed to HTJ2K (transfer syntax 1.2.840.10008.1.2.4.202) also need a
decoder: the Python packages imagecodecs and numpy, or any command given by --decoder, for example

    --decoder "ojph_expand -i {in} -o {out}"

which reads a codestream (.j2c) and writes its samples as raw little-endian integers, rows first, in 1 or 2 bytes each.

A segment is a tar file (POSIX.1-2001). Each member is a DICOM file; what DICOM cannot say is in the member's pax
records SCHILY.xattr.user.sansfilm.*:

    wire_sha256               SHA-256 of the data set as it was received (everything after group 2)
    sha256                    SHA-256 of the whole file as it was received (large instances)
    received_transfer_syntax  how that data set was encoded
    recipe                    JSON: how to undo the compression; absent where the bytes are stored as they came

The recipe's fields: element_offset, where the Pixel Data element begins in the data set; stored_end, where the rest
begins in the stored data set; header and tail, hexadecimal, the bytes of the received data set before its first and
after its last sample; sample_type, the width and sign of its samples.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple  # noqa: UP035 - runs on old Pythons

PREFIX = "SCHILY.xattr.user.sansfilm."


class Wrong(Exception):
    """A member is not what its provenance says."""


def members(paths: List[Path]) -> Iterator[Tuple[str, Dict[str, str], bytes]]:  # noqa: UP006
    """Name, provenance and bytes of every member of the segments."""
    for path in paths:
        with tarfile.open(path, "r:") as segment:
            for member in segment:
                body = segment.extractfile(member)
                if body is None or member.name.startswith(".sansfilm/"):
                    continue
                said = {key[len(PREFIX) :]: text for key, text in member.pax_headers.items() if key.startswith(PREFIX)}
                yield member.name, said, body.read()


def original(file: bytes, said: Dict[str, str], decoder: Optional[str]) -> Tuple[bytes, str]:  # noqa: UP006, UP045
    """The file as it was received (its data set exact to the byte), and how that was proven.

    Raises:
        Wrong: a digest differs, or the recipe does not fit.
    """
    start = dataset_offset(file)
    dataset = file[start:]
    if "recipe" in said:
        dataset = uncompressed(dataset, json.loads(said["recipe"]), decoder)
        file = with_transfer_syntax(file[:start], said["received_transfer_syntax"]) + dataset
    if "wire_sha256" in said:
        return file, check(dataset, said["wire_sha256"], "data set")
    if "sha256" in said:
        return file, check(file, said["sha256"], "file")
    return file, "no digest recorded"


def check(data: bytes, expected: str, what: str) -> str:
    """Compare with a recorded SHA-256."""
    if hashlib.sha256(data).hexdigest() != expected:
        raise Wrong("SHA-256 of the " + what + " differs")
    return "SHA-256 of the " + what + " equal"


def dataset_offset(file: bytes) -> int:
    """Where the data set begins: behind preamble, prefix and group 2 (PS3.10 7.1); 0 for what is no such file."""
    if file[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        return 0
    return 144 + int(struct.unpack_from("<L", file, 140)[0])


def with_transfer_syntax(head: bytes, transfer_syntax: str) -> bytes:
    """The file meta information with another Transfer Syntax UID (0002,0010)."""
    at = head.index(b"\x02\x00\x10\x00UI", 144)
    size = struct.unpack_from("<H", head, at + 6)[0]
    uid = transfer_syntax.encode() + b"\0" * (len(transfer_syntax) % 2)
    group = head[144:at] + b"\x02\x00\x10\x00UI" + struct.pack("<H", len(uid)) + uid + head[at + 8 + size :]
    return head[:140] + struct.pack("<L", len(group)) + group


def uncompressed(dataset: bytes, recipe: Dict[str, Any], decoder: Optional[str]) -> bytes:  # noqa: UP006, UP045
    """The data set before its pixels were compressed."""
    start, end = recipe["element_offset"], recipe["stored_end"]
    frames = [decoded(frame, recipe["sample_type"], decoder) for frame in codestreams(dataset[start:end])]
    head, tail = bytes.fromhex(recipe["header"]), bytes.fromhex(recipe["tail"])
    return b"".join([dataset[:start], head, *frames, tail, dataset[end:]])


def codestreams(element: bytes) -> Iterator[bytes]:
    """The items of encapsulated Pixel Data behind its offset table (PS3.5 A.4)."""
    at, index = 12, 0
    while element[at : at + 4] == b"\xfe\xff\x00\xe0":
        size = struct.unpack_from("<L", element, at + 4)[0]
        if index:
            yield element[at + 8 : at + 8 + size]
        at, index = at + 8 + size, index + 1
    if element[at : at + 4] != b"\xfe\xff\xdd\xe0":
        raise Wrong("the compressed pixels are damaged")


def decoded(codestream: bytes, sample_type: str, decoder: Optional[str]) -> bytes:  # noqa: UP045
    """The samples of one frame."""
    if decoder:
        return decoded_by(decoder, codestream)
    try:
        import imagecodecs
        import numpy
    except ImportError:
        raise SystemExit("install the Python packages imagecodecs and numpy, or give --decoder") from None
    samples = numpy.asarray(imagecodecs.htj2k_decode(codestream))
    return bytes(samples.astype(numpy.dtype(sample_type), copy=False).tobytes())


def decoded_by(decoder: str, codestream: bytes) -> bytes:
    """The samples of one frame, by a command."""
    with tempfile.TemporaryDirectory() as folder:
        given, wanted = Path(folder, "frame.j2c"), Path(folder, "frame.raw")
        given.write_bytes(codestream)
        words = [word.replace("{in}", str(given)).replace("{out}", str(wanted)) for word in shlex.split(decoder)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        return wanted.read_bytes()


def place(folder: Path, name: str) -> Path:
    """Where to write a member; names are not trusted as paths."""
    parts = [re.sub(r"[^0-9A-Za-z._-]", "_", part) for part in name.split("/") if part.strip(".")]
    return folder.joinpath(*parts)


def main(arguments: Optional[List[str]] = None) -> int:  # noqa: UP006, UP045
    parser = argparse.ArgumentParser(description="Restores what an archive received.")
    parser.add_argument("command", choices=["list", "verify", "restore"])
    parser.add_argument("segments", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, help="folder to restore into")
    parser.add_argument("--decoder", help="command with {in} and {out} that decodes one HTJ2K codestream")
    given = parser.parse_args(arguments)
    if given.command == "restore" and given.to is None:
        parser.error("restore needs --to FOLDER")
    wrong = 0
    for name, said, file in members(given.segments):
        if given.command == "list":
            print(name, len(file), said.get("received_transfer_syntax", "-"), said.get("wire_sha256", "-"))
            continue
        try:
            restored, proof = original(file, said, given.decoder)
        except (Wrong, ValueError, KeyError, struct.error, subprocess.CalledProcessError) as error:
            wrong += 1
            print(name, "WRONG:", error, file=sys.stderr)
            continue
        if given.command == "restore":
            target = place(given.to, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(restored)
        print(name, proof)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
