"""Which abstract and transfer syntaxes are accepted, against the standard's registry."""

from __future__ import annotations

import pytest
from pydicom.uid import UID, AllTransferSyntaxes, JPEGTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts, QueryRetrievePresentationContexts
from pynetdicom import sop_class as sop_classes

from ingest.dimse.acceptance import PREFERENCE, is_accepted_abstract_syntax, is_accepted_transfer_syntax, preferred

EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
RLE, JPEG_BASELINE, MPEG4 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.102"


def test_every_storage_class_and_nothing_else() -> None:
    stored = [context.abstract_syntax for context in AllStoragePresentationContexts]
    assert len(stored) > 150 and all(is_accepted_abstract_syntax(str(uid)) for uid in stored)
    refused = [context.abstract_syntax for context in QueryRetrievePresentationContexts]
    refused += [sop_classes.ModalityPerformedProcedureStep, sop_classes.StorageCommitmentPushModel]
    refused += [UID("1.2.840.10008.1.3.10"), UID(EXPLICIT_LE), UID("1.2.840.10008.3.1.1.1"), UID("")]
    assert not [uid for uid in refused if is_accepted_abstract_syntax(str(uid))]


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.1", "1.3.12.2.1107.5.99.3.10", "1.2.840.10008.5.1.4.1.1.9999"])
def test_verification_private_and_newer_classes(uid: str) -> None:
    assert is_accepted_abstract_syntax(uid)


@pytest.mark.parametrize(
    ("proposed", "accepted"),
    [
        ((IMPLICIT_LE, EXPLICIT_LE), EXPLICIT_LE),
        ((EXPLICIT_BE, DEFLATED, RLE, IMPLICIT_LE), IMPLICIT_LE),
        ((EXPLICIT_BE, DEFLATED, RLE), RLE),
        ((EXPLICIT_BE, DEFLATED), DEFLATED),
        ((JPEG_BASELINE, EXPLICIT_BE), EXPLICIT_BE),
        ((MPEG4, JPEG_BASELINE), JPEG_BASELINE),
        ((MPEG4,), MPEG4),
        (("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.7.1", "1.2.840.113619.5.2"), None),
        ((), None),
    ],
)
def test_our_order(proposed: tuple[str, ...], accepted: str | None) -> None:
    assert preferred(proposed) == accepted
    assert preferred(proposed[::-1]) == accepted


def test_every_registered_syntax_that_holds_an_object() -> None:
    """All but JPIP and SMPTE, each once."""
    assert len(set(PREFERENCE)) == len(PREFERENCE)
    assert all(is_accepted_transfer_syntax(str(uid)) for uid in JPEGTransferSyntaxes)
    refused = {str(uid) for uid in AllTransferSyntaxes if not is_accepted_transfer_syntax(str(uid))}
    assert refused <= {
        *(f"1.2.840.10008.1.2.4.{number}" for number in (94, 95, 204, 205)),
        *(f"1.2.840.10008.1.2.7.{number}" for number in (1, 2, 3)),
    }
