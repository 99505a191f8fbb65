"""A multipart upload of which the parts may come in any order. Nothing is visible before it is completed.

Of a process that died, or of a completion that got no answer, the parts sent may stay in the store, invisible; expire
them by the bucket's rule for incomplete uploads. That is the one rule by age there may be: nothing ever points to an
incomplete upload.
"""

from __future__ import annotations

import re
from typing import Final

from archive.s3_access import S3Access
from archive.s3_objects import name_of
from archive.s3_requests import NoAnswer, SignedRequests
from archive.segment_store import Buffer
from runtime.errors import Retryable
from runtime.logs import get_logger

#: S3's own limits: parts but the last are at least this large, and there are at most so many.
PART_BYTES_MIN: Final = 5 * 1024 * 1024
PARTS_MAX: Final = 10_000
_UPLOAD_ID = re.compile(r"<UploadId>([^<]{1,1024})</UploadId>")
_EXISTS_STATUS, _GONE_CODE = 412, "NoSuchUpload"


class InDoubt(Retryable):
    """The upload was completed, or somebody else made the object: look at what is there."""


class MultipartUpload:
    """One upload, begun with its first part. Not thread-safe; end it with `complete` or `abort`."""

    def __init__(self, access: S3Access, key: str) -> None:
        self._requests = SignedRequests(access)
        self._name = name_of(key)
        self._upload_id = ""
        self._e_tags: dict[int, str] = {}

    def put_part(self, number: int, body: Buffer) -> None:
        """Send part `number`, counted from 1. The server compares its MD5.

        Raises:
            OutOfSpace, Retryable: call `abort`.
        """
        if not self._upload_id:
            self._begin()
        query = {"partNumber": str(number), "uploadId": self._upload_id}
        answer = self._requests.require("put a part", self._requests.send("PUT", self._name, query, body))
        self._e_tags[number] = answer.e_tag

    def complete(self) -> None:
        """Make the object of its parts, unless there is one.

        Raises:
            InDoubt: there is an object, perhaps ours.
            OutOfSpace, Retryable: call `abort`.
        """
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{e_tag}</ETag></Part>"
            for number, e_tag in sorted(self._e_tags.items())
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query, self._upload_id = {"uploadId": self._upload_id}, ""
        try:
            answer = self._requests.send("POST", self._name, query, body, {"if-none-match": "*"})
        except NoAnswer as error:
            raise InDoubt(str(error)) from error
        finally:
            self._requests.close()
        if answer.status == _EXISTS_STATUS or answer.code == _GONE_CODE:
            raise InDoubt("there is such an object, or no such upload any longer")
        if not answer.is_success:
            self._upload_id = query["uploadId"]
        self._requests.require("complete an upload", answer)

    def abort(self) -> None:
        """Drop the parts that were sent, if the store lets itself be told.

        Does nothing once the upload was completed or may have been: a server that is still at it could take the parts
        away from under the object.
        """
        try:
            if self._upload_id:
                self._requests.send("DELETE", self._name, {"uploadId": self._upload_id})
        except Retryable as error:
            get_logger().warning("upload_left_incomplete", error=str(error))
        finally:
            self._upload_id = ""
            self._requests.close()

    def _begin(self) -> None:
        answer = self._requests.require("begin an upload", self._requests.send("POST", self._name, {"uploads": ""}))
        found = _UPLOAD_ID.search(answer.body)
        if found is None:
            raise Retryable("cannot begin an upload: the object store gives no id")
        self._upload_id = found[1]
