"""`sam_nb convert` on what people bring: names, interrupts, full disks, folders that are taken, round trips."""
import base64
import io
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sam_nb.core import DatasetError, ParameterError, SamNbError
from sam_nb.datasets.conversion import convert, open_source
from sam_nb.datasets.object_checks import check_objects
from sam_nb.datasets.objects import splits_on_disk
from sam_nb.datasets.writers import WRITERS, Labelled
from tests.command import MAIN, environment

H, W = 40, 60


def maps(folder: Path, names=("a", "b"), ending: str = ".jpg") -> Path:
    "Pictures beside instance maps: a ring with a disc in its hole, and a thing in two pieces."
    y, x = np.mgrid[:H, :W]
    ids = np.zeros((H, W), np.uint16)
    distance = np.hypot(x - 20, y - 20)
    ids[distance < 15], ids[distance < 9], ids[distance < 5] = 1, 0, 2
    ids[5:12, 40:50] = ids[25:35, 45:58] = 300
    for name in names:
        for below, pixels, end in (("images", (ids * 40).astype(np.uint8), ending), ("instance", ids, ".png")):
            (folder / below / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / below / f"{name}{end}")
    return folder


def shapes() -> np.ndarray:  # uint8 [5, H, W]
    "A ring, the disc in it, a thing in two pieces with a hole in one, a diagonal line, one pixel."
    y, x = np.mgrid[:H, :W]
    distance, pieces = np.hypot(x - 20, y - 20), np.zeros((H, W), bool)
    pieces[5:12, 40:50] = pieces[25:35, 45:58] = True
    pieces[28:31, 48:52] = False
    return np.stack([(distance < 15) & (distance >= 9), distance < 5, pieces, (x == y + 19) & (y > 3), (x == 59) & (y == 0)]).astype(np.uint8)


def found(folder: Path, **options) -> dict[str, list[bytes]]:
    return {p.name: sorted(m["counts"] for m in p.masks) for p in open_source(folder, **options)}


@pytest.mark.parametrize("to", WRITERS)
def test_masks_come_back(tmp_path, to):
    source = maps(tmp_path / "in", ("a", "with space", "ü"))
    written = convert(source, tmp_path / "out", to)
    assert (written.pictures, written.objects) == (3, 9)
    before, after = found(source), found(tmp_path / "out")
    assert sorted(before) == sorted(after)
    if to == "yolo":  # a line joins the two pieces
        assert written.lost.pop("pixels that these lines add") > 0 and written.lost.pop("objects in several pieces, joined by lines of a pixel") == 3
        assert all(len(set(before[n]) & set(after[n])) == 2 and len(after[n]) == 3 for n in before)
    else: assert before == after
    reports = [check_objects(tmp_path / "out", split) for split in splits_on_disk(tmp_path / "out") or [None]]
    assert not any(r.errors for r in reports), [str(r) for r in reports]


def test_yolo_without_splits_says_what_val_is(tmp_path):
    source = maps(tmp_path / "in")
    text = str(convert(source, tmp_path / "out", "yolo"))
    assert "there is no split val: data.yaml names images/train instead" in text and text in (tmp_path / "out/conversion.txt").read_text()
    for split, name in (("train", "a"), ("val", "b")): (source / f"{split}.txt").write_text(f"{name}\n")  # what the note says to do
    assert not convert(source, tmp_path / "divided", "yolo").notes
    assert "val: images/val" in (tmp_path / "divided/data.yaml").read_text()
    assert not convert(maps(tmp_path / "other"), tmp_path / "coco", "coco").notes


def unpacked(text: str) -> dict:
    "A LabelMe file with its masks as pixels: the bytes of a PNG differ between versions of Pillow."
    said = json.loads(text)
    for s in said["shapes"]: s["mask"] = s["mask"] and np.array(Image.open(io.BytesIO(base64.b64decode(s["mask"])))).tolist()
    return said


@pytest.mark.parametrize("to, file, lines", [("yolo", "labels/train/a.txt", 13), ("labelme", "a.json", 0)])
def test_the_tools_draw_the_masks_that_were_written(tmp_path, to, file, lines):
    "Ultralytics and LabelMe drew the golden files, and the writers write these files still."
    runs = [coco.encode(np.asfortranarray(p)) for p in shapes()]
    WRITERS[to]([Labelled("a", None, (H, W), runs, [0, 1, 0, 1, 0])], ["cup", "plate"], tmp_path / "out")
    golden = Path(__file__).parents[1] / "golden/formats/written"
    written, known = (tmp_path / "out" / file).read_text(), (golden / f"{to}{Path(file).suffix}").read_text()
    assert written == known if to == "yolo" else unpacked(written) == unpacked(known)
    objects = json.loads((golden / f"{to}_drawn.json").read_text())["objects"]
    drawn = [np.repeat(np.arange(len(o["runs"])) % 2, o["runs"]).reshape(H, W) for o in objects]
    assert [int((d != p).sum()) for d, p in zip(drawn, shapes(), strict=True)] == [0, 0, lines, 0, 0]  # the line between two pieces


@pytest.mark.parametrize("to", sorted(set(WRITERS) - {"yolo"}))
def test_the_way_back_gives_the_same_maps(tmp_path, to):
    source = maps(tmp_path / "in")
    convert(convert(source, tmp_path / "there", to).folder, tmp_path / "back", "instance")
    for name in "ab":
        first, again = (np.array(Image.open(f / f"instance/{name}.png")) for f in (source, tmp_path / "back"))
        pairs = np.unique(np.stack([first.ravel(), again.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(first)) == len(np.unique(again))  # each id became one id
        assert (source / f"images/{name}.jpg").read_bytes() == (tmp_path / f"back/images/{name}.jpg").read_bytes()


def labelled(*names: str, image: Path | None = None):
    rle = coco.encode(np.asfortranarray(np.eye(H, W, dtype=np.uint8)))
    for name in names: yield Labelled(name, image and str(image), (H, W), [rle], [0])


@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize("name", ["../out2/a", "/tmp/a", "a/../../b", "..", "C:\\a"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, to, name):
    with pytest.raises(DatasetError, match="a picture called"): WRITERS[to](labelled("a", name), ["x"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", WRITERS)
def test_pictures_of_one_name_in_two_folders(tmp_path, to):
    picture = maps(tmp_path / "in", ("a",)) / "images/a.jpg"
    names = ("north/1", "south/1", "south/1", "North/1", "images/1")
    written = WRITERS[to](labelled(*names, image=picture), ["x"], tmp_path / "out")
    pictures = [p for p in (tmp_path / "out").rglob("*.jpg")]
    assert len(pictures) == len({str(p).casefold() for p in pictures}) == written.pictures == 5
    assert len(found(tmp_path / "out")) == 5


def test_a_name_of_the_source_that_leaves_the_folder(tmp_path):
    source = convert(maps(tmp_path / "in"), tmp_path / "coco", "coco").folder
    file = source / "annotations/instances.json"
    said = json.loads(file.read_text())
    said["images"][0]["file_name"] = f"C:\\Users\\me\\{said['images'][0]['file_name']}"
    said["images"][1]["file_name"] = f"../../{said['images'][1]['file_name']}"
    file.write_text(json.dumps(said))
    convert(source, tmp_path / "out", "yolo")
    assert sorted(p.name for p in (tmp_path / "out/images/train").iterdir()) == ["a.jpg", "b.jpg"]


def test_folders_that_are_taken(tmp_path):
    source = maps(tmp_path / "in")
    for out in (source, source / "out", tmp_path):
        with pytest.raises(ParameterError): convert(source, out, "coco", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ParameterError, match="not written by this command"): convert(source, tmp_path / "mine", "coco", overwrite=True)
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(ParameterError, match="in the folder that is read"): convert(source, tmp_path / "link/out", "coco")
    assert (tmp_path / "mine/thesis.txt").is_file() and sorted(p.name for p in source.iterdir()) == ["images", "instance"]


def test_annotations_alone_are_read_with_the_pictures_where_they_are(tmp_path):
    source = maps(tmp_path / "in", ("town/a", "b"))
    for to in ("coco", "yolo", "instance", "voc"):
        convert(source, tmp_path / to, to, copy=False)
        assert not list((tmp_path / to).rglob("*.jpg"))
    assert found(tmp_path / "coco", images=str(source / "images")) == found(source)


def _limited() -> None: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_leaves_nothing(tmp_path):
    maps(tmp_path / "in", [f"{k}" for k in range(40)])
    done = subprocess.run([*MAIN, "convert", "in", "out", "--to", "coco", "--link"], cwd=tmp_path, env=environment(tmp_path), capture_output=True,
                          text=True, preexec_fn=_limited, timeout=120)
    assert done.returncode == 1 and "larger than this system allows" in done.stderr, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_stopped_and_run_again(tmp_path, how):
    maps(tmp_path / "in", [f"{k}" for k in range(400)])
    slow = "import time, sam_nb.datasets.writers as w; one = w.crop_of_runs; w.crop_of_runs = lambda r: (time.sleep(0.02), one(r))[1]; "
    words = [sys.executable, "-c", slow + MAIN[2], "convert", "in", "out", "--to", "yolo"]
    going = subprocess.Popen(words, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    until = time.monotonic() + 90
    while not any("labels" in str(p) for p in tmp_path.glob(".out*/labels/*/*")) and time.monotonic() < until: time.sleep(0.05)
    going.send_signal(getattr(signal, how))
    said = going.communicate(timeout=60)[1]
    assert not (tmp_path / "out").exists()
    if how == "SIGINT": assert (going.returncode, said.strip()) == (130, "stopped") and [p.name for p in tmp_path.iterdir()] == ["in"]
    assert convert(tmp_path / "in", tmp_path / "out", "yolo").pictures == 400
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_what_has_no_masks_is_refused_by_name(tmp_path):
    maps(tmp_path / "in")
    with pytest.raises(SamNbError) as error: convert(tmp_path / "in/images", tmp_path / "out", "coco")
    assert "no masks" in str(error.value)
    with pytest.raises(ParameterError, match="no folder, file or dataset"): convert(tmp_path / "nowhere", tmp_path / "out", "coco")
    (tmp_path / "in/images/a.jpg").write_bytes(b"\xff\xd8 cut off")
    written = convert(tmp_path / "in", tmp_path / "out", "coco")
    assert written.pictures == 1 and len(written.failed) == 1 and "a.jpg" in str(written)
