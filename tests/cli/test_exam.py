"""The phantom: the same for the same seed, and a sound MR exam."""

from __future__ import annotations

import io
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cli.demo import make_exam
from cli.exam import Exam
from cli.phantom import SIZE, Phantom
from runtime.errors import Misconfigured


def exam(**changes: object) -> Exam:
    given: dict[str, object] = {"seed": 7, "identity": "test", "acquired": datetime(2026, 3, 1, 8, 15), "slices": 2}  # noqa: DTZ001
    return Exam(**{**given, **changes})  # type: ignore[arg-type]


def read(content: bytes) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(content))


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert list(exam().instances()) == list(exam().instances())


def test_another_seed_gives_another_head() -> None:
    one, other = Phantom(1).slice(20.0, ("T1",))["T1"], Phantom(2).slice(20.0, ("T1",))["T1"]
    assert np.abs(one - other).mean() > 0.02


def test_a_slice_does_not_depend_on_what_was_drawn_before() -> None:
    phantom = Phantom(3)
    phantom.slice(0.0)
    np.testing.assert_array_equal(phantom.slice(20.0, ("T2",))["T2"], Phantom(3).slice(20.0)["T2"])


def test_the_picture_has_a_head_in_it() -> None:
    image = Phantom(7).slice(16.0, ("T1",))["T1"]
    assert image.shape == (SIZE, SIZE)
    corner, middle = image[:20, :20], image[96:160, 96:160]
    assert corner.mean() < 0.05
    assert middle.mean() > 0.3
    assert len(np.unique((image * 255).astype(np.uint8))) > 100


def test_the_contrasts_show_water_as_they_should() -> None:
    """Liquor is dark on T1, bright on T2, and dark again on FLAIR; its brightest T2 pixels tell where it is."""
    images = Phantom(7).slice(12.0)
    liquor = images["T2"] > 0.9
    assert liquor.sum() > 200
    assert images["T1"][liquor].mean() < 0.25
    assert images["FLAIR"][liquor].mean() < 0.2


def test_identity_and_geometry() -> None:
    files = [read(content) for _, content in exam().instances()]
    assert [file.SeriesDescription for file in files[:3]] == ["T1 SE axial", "T2 TSE axial", "T2 FLAIR axial"]
    assert len({file.SOPInstanceUID for file in files}) == 6
    assert len({file.SeriesInstanceUID for file in files}) == 3
    assert {file.StudyInstanceUID for file in files} == {exam().study_instance_uid}
    assert len({file.FrameOfReferenceUID for file in files}) == 1
    assert all(pydicom.uid.UID(file.SOPInstanceUID).is_valid for file in files)
    spacing = float(files[3].ImagePositionPatient[2]) - float(files[0].ImagePositionPatient[2])
    assert spacing == pytest.approx(float(files[0].SpacingBetweenSlices), abs=0.01)
    assert files[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert files[0].pixel_array.max() <= 4095


def test_series_can_be_chosen() -> None:
    chosen = make_exam(slices=1, series=["t2"], seed=1)
    assert chosen.instance_count == 1
    with pytest.raises(Misconfigured, match="T1,T2,FLAIR"):
        make_exam(slices=1, series=["CT"], seed=1)


def test_every_run_is_a_new_exam_unless_seeded() -> None:
    series = ["T1"]
    fresh = {make_exam(slices=1, series=series, seed=None).study_instance_uid for _ in range(3)}
    assert len(fresh) == 3
    seeded = {make_exam(slices=1, series=series, seed=5).study_instance_uid for _ in range(3)}
    assert len(seeded) == 1


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    for number, (_, content) in enumerate(exam().instances()):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said, said
