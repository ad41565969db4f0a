import io
import re
import tarfile

import pytest
from datacomp.errors import DatacompError, DataError, MissingError, UnsafeInputError
from datacomp.evaluate.evalsets import Flawed, Sample, check_evalsets, open_evalset
from datacomp.pools.tar import tar_bytes


def png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_set_is_read_in_order(sets):
    sets.write("colours", size=5)
    found = open_evalset(sets.data, sets.task("colours"))
    samples = list(found.samples())
    assert [sample.key for sample in samples] == [
        "0.tar:s0000000", "0.tar:s0000001", "0.tar:s0000002", "1.tar:s0000003", "1.tar:s0000004",
    ]  # fmt: skip
    assert [s.label for s in samples if isinstance(s, Sample)] == [0, 1, 2, 3, 4]
    assert found.templates == ("a photo of {c}", "a {c} picture {not this}")


def test_captions_are_the_lines_of_txt(sets):
    path = sets.write("pairs", "retrieval", size=1, shards=1)
    text = " one \n\ntwo\u2028and more\r\n".encode()  # only a line feed ends a line
    members = [("a.jpg", png()), ("a.txt", text), ("b.webp", png()), ("b.txt", b"\n")]
    (path / "test" / "0.tar").write_bytes(tar_bytes(members))
    samples = list(open_evalset(sets.data, sets.task("pairs", "retrieval")).samples())
    assert samples == [
        Sample("0.tar:a", png(), captions=("one", "two\u2028and more")),
        Flawed("0.tar:b", "no caption"),
    ]


def test_a_sample_without_an_image_is_named(sets):
    path = sets.write("colours", size=1, shards=1)
    (path / "test" / "0.tar").write_bytes(tar_bytes([("a.cls", b"0"), ("a.npy", b"x")]))
    samples = list(open_evalset(sets.data, sets.task("colours")).samples())
    assert samples == [Flawed("0.tar:a", "no image")]


def test_the_digest_covers_texts_and_tars(sets):
    path = sets.write("colours")
    task = sets.task("colours")
    digests = {open_evalset(sets.data, task).digest()}
    for file in ("classnames.txt", "zeroshot_classification_templates.txt"):
        (path / file).write_text((path / file).read_text().replace("re", "ri"))
        digests.add(open_evalset(sets.data, task).digest())
    (path / "test" / "1.tar").write_bytes(tar_bytes([]))
    digests.add(open_evalset(sets.data, task).digest())
    # a {c} picture has no "re" to replace in it but "picture", so each step changed something
    assert len(digests) == 4


CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


@pytest.mark.parametrize(
    ("file", "content", "kind", "message"),
    [
        (CLASSES, None, MissingError, "{} is not there; fetch the evaluation set again"),
        (CLASSES, "", DataError, "{}: no class names in it"),
        (CLASSES, "\n\n", DataError, "{}: no class names in it"),
        (CLASSES, "a\n\nb\nc\nd\ne\n", DataError, "{}: line 2 is empty; each line is a class"),
        (CLASSES, "a\nb\nc\na\nd\ne\n", DataError, "{}: line 4 repeats the class 'a'"),
        (CLASSES, "a\nb\n", DataError, "{}: 2 classes, task colours has 6"),
        (CLASSES, b"\xff\xfe", DataError, "{}: not UTF-8 text"),
        (TEMPLATES, None, MissingError, "{} is not there; fetch the evaluation set again"),
        (TEMPLATES, "", DataError, "{}: no templates in it"),
        (TEMPLATES, "a {c}\na photo\n", DataError, "{}: line 2 has no {{c}} for the class name"),
        ("test/nshards.txt", None, MissingError, "{} is not there; fetch the evaluation set again"),
        ("test/nshards.txt", "two", DataError, "{}: 'two', expected the number of tars"),
        ("test/nshards.txt", "0", DataError, "{}: '0', expected the number of tars"),
        ("test/nshards.txt", "9" * 30, DataError,
         "{}: '99999999999999999999', expected the number of tars"),
        ("test/nshards.txt", "0000000019999999999", DataError,
         "{}: '0000000019999999999', expected the number of tars"),
        ("test/1.tar", None, MissingError, "{} is not there (nshards.txt says 2); fetch it again"),
        ("dataset_type.txt", "multilabel", DataError,
         "{}: type is 'multilabel', task colours needs 'classification'"),
    ],
)  # fmt: skip
def test_a_broken_set_is_refused_by_file_and_line(sets, file, content, kind, message):
    path = sets.write("colours") / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(kind, match=rf"^{re.escape(message.format(path))}$"):
        open_evalset(sets.data, sets.task("colours"))


def test_published_lists_with_repeated_or_empty_names_are_read(sets):
    path = sets.write("colours")
    (path / CLASSES).write_text("missile\nb\nmissile\n\ne\nf\n")
    task = sets.task("colours", repeated_names=1, blank_names=1)
    assert open_evalset(sets.data, task).classnames == ("missile", "b", "missile", "", "e", "f")


def test_a_task_without_its_folder(sets):
    with pytest.raises(MissingError, match=r"no data of task colours: there is no folder .*/wds_"):
        open_evalset(sets.data, sets.task("colours"))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"6", "label is 6, but classnames.txt has 6 classes (0 to 5)"),
        (b"-1", "label is '-1', expected a whole number"),
        (b"red", "label is 'red', expected a whole number"),
        ("²".encode(), "label is '²', expected a whole number"),
        (b"\xff", ".cls is not UTF-8 text"),
        (b"1" * 65, ".cls of 65 bytes"),
        (None, "no .cls beside the image"),
    ],
)
def test_a_wrong_label_stops_the_task(sets, label, message):
    path = sets.write("colours", size=1, shards=1)
    members = [("a.cls", label)] if label is not None else []
    (path / "test" / "0.tar").write_bytes(tar_bytes([*members, ("a.png", png())]))
    where = f"{path / 'test' / '0.tar'}: sample 'a': {message}"
    with pytest.raises(DataError, match=rf"^{re.escape(where)}$"):
        list(open_evalset(sets.data, sets.task("colours")).samples())


def test_a_truncated_tar_is_refused(sets):
    path = sets.write("colours") / "test" / "0.tar"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"0\.tar: truncated at byte 1500"):
        list(open_evalset(sets.data, sets.task("colours")).samples())


def test_a_tar_that_leaves_its_folder_is_refused(sets):
    path = sets.write("colours") / "test" / "0.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("../a.png"))
    with pytest.raises(UnsafeInputError, match="would leave its folder"):
        list(open_evalset(sets.data, sets.task("colours")).samples())


def test_every_refusal_is_one_line(sets):
    sets.write("colours")
    with pytest.raises(DatacompError) as caught:
        open_evalset(sets.data, sets.task("colours", classes=7))
    assert "\n" not in str(caught.value)


def test_sets_are_checked_before_a_model_is_trained(sets, tmp_path):
    sets.write("colours")
    check_evalsets(sets.data, [sets.task("colours")])
    with pytest.raises(MissingError) as caught:
        check_evalsets(tmp_path / "none", [sets.task("colours")])
    assert str(caught.value).startswith(
        f"no evaluation sets at {tmp_path / 'none'}: no such folder; 'datacomp evalsets "
    )
    tasks = [sets.task("colours"), *(sets.task(f"t/{number}") for number in range(7))]
    with pytest.raises(MissingError) as caught:
        check_evalsets(sets.data, tasks)
    assert str(caught.value) == (
        f"{sets.data}: 7 of 8 tasks have no folder there: wds_t-0_test, wds_t-1_test, "
        "wds_t-2_test, wds_t-3_test, wds_t-4_test and 2 more; "
        f"'datacomp evalsets demo {sets.data}' builds the demo suite"
    )
    (sets.data / "wds_colours_test/classnames.txt").unlink()
    with pytest.raises(MissingError, match=r"classnames\.txt is not there; fetch the evaluation"):
        check_evalsets(sets.data, tasks[:1])
