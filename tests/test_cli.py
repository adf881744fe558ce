"""The command sam_nb: its speed, its signals, its jobs on a cluster."""
from __future__ import annotations

import json
import os
import re
import signal
import sys

import papermill
import pytest

from sam_nb.cli import main
from sam_nb.contract import jobs
from sam_nb.launch.job_notebooks import job_cells
from sam_nb.launch.parameters import find_notebook, read_command, read_parameters
from sam_nb.training.runs import Run
from tests.command import CHECKOUT, run, sam_nb, start, wait_for, write_notebook

PARAMETERS = '''dataset: str = "demo"
epochs: int | None = 2
slow: float = 0.0  # seconds a step
resume: str | None = None
run_name: str | None = None'''
TRAIN = '''from sam_nb.recipe import Recipe
from sam_nb.training.runs import Run
from tests import toy
recipe = Recipe(**{**toy.RECIPE, "dataset": dataset, "epochs": epochs, "resume": resume, "run_name": run_name, "workers": 0})
run = Run.resume(resume, "toy", recipe) if resume else Run.create("toy", recipe)
toy.torch.manual_seed(recipe.seed)
trainer = toy.Trainer(toy.Toy(), recipe, run, toy.Shapes(60), toy.augment, toy.Shapes(10, "val"), metric=toy.Score(), callbacks=[toy.Slow(slow)])
trainer.fit()'''
QUICK = '''import time
from sam_nb.recipe import Recipe
from sam_nb.training.runs import Run
recipe = Recipe(dataset=dataset, epochs=epochs, run_name=run_name)
run = Run.create("quick", recipe)
run.start()
time.sleep(slow)
run.finish({"miou": 50.0})
print("done quickly")'''


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "A workspace with two small methods."
    folder = tmp_path_factory.mktemp("workspace")
    write_notebook(folder / "nbs/train_toy.ipynb", PARAMETERS, TRAIN)
    write_notebook(folder / "nbs/train_quick.ipynb", PARAMETERS, QUICK)
    return folder


def runs(root): return {p.parent.name for p in root.glob("runs/*/run.json") if p.stat().st_size}


def status(root, name): return Run.open(name, root / "runs").status


def test_help_is_fast_and_imports_nothing_heavy(root):
    said = min((sam_nb("--help", root) for _ in range(3)), key=lambda s: s.cpu)
    assert said.code == 0 and "demo-data" in said.out and said.cpu < 0.5
    code = "import sys; from sam_nb.cli import main; main(['train', 'sartm', '--help']); print({'torch', 'numpy', 'pandas'} & {*sys.modules})"
    said = run([sys.executable, "-c", code], root)
    assert "--use_text_kl [bool|None]" in said.out and "language-aided distillation" in said.out and said.out.endswith("set()\n") and said.cpu < 1


def test_help_says_what_each_method_is_for(root):
    "From the cards, without PyTorch."
    for words in ("--help", "train --help", "eval --help"):
        said = min((sam_nb(words, root) for _ in range(2)), key=lambda s: s.cpu)
        assert said.code == 0 and said.cpu < 1
        for card in jobs().values(): assert f"{card.name} " in said.out and card.what in said.out, words


def test_cards_need_no_torch(root):
    code = "import sys; from sam_nb.contract import jobs; jobs(); print({'torch', 'pandas'} & {*sys.modules})"
    assert run([sys.executable, "-c", code], root).out == "set()\n"


def parameters_source(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    return next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))


def test_parameters_cells_are_those_of_the_recipes(monkeypatch):
    "`make export` writes them."
    monkeypatch.setenv("SAM_NB_ROOT", str(CHECKOUT))
    cells = job_cells()
    assert {f"{job}_{name}.ipynb" for name in jobs() for job in ("train", "eval") if (CHECKOUT / f"nbs/{job}_{name}.ipynb").exists()} < {p.name for p in cells}
    for notebook, source in cells.items(): assert parameters_source(notebook) == source, notebook.name


@pytest.mark.parametrize("name", jobs())
def test_every_field_can_be_set_by_hand(name):
    "By the command and by papermill, which shows all of them with --help-notebook."
    card = jobs()[name]
    fields = {n: f for n, f in card.recipe.model_fields.items()}
    notebook = find_notebook("train", name)
    parameters = read_parameters(notebook)
    assert {*fields} == {*parameters} == {*papermill.inspect_notebook(notebook)}
    for field, f in fields.items():
        value = f.get_default(call_default_factory=True)
        given = read_command("train", name, [f"--{field}", str(value)], parameters)[1]
        assert given == {field: value}, (field, given, value)


def test_a_dry_run_starts_nothing(root):
    for job in ("train", "eval"):
        said = min((sam_nb(f"{job} sartm --dry_run", root) for _ in range(2)), key=lambda s: s.cpu)
        assert said.code == 0 and said.cpu < 3, said.error
        assert "parameter " in said.out and "precision " in said.out
    said = sam_nb("train sartm --dry_run --lr 2e-3", root)
    for row in (r"lr +0.002 +given", r"steps +250 +preset demo", r"jitter +0.2 +default", r"data .*data/demo", r"weights +model: tiny_sam2, .*checkpoints/tiny_sam2"):
        assert re.search(row, said.out), row
    assert not [p for p in (root / "runs").glob("sartm*")]
    said = sam_nb("train sartm --dry_run --lr fast", root)
    assert said.code == 1 and "lr='fast' is not a number" in said.error
    said = sam_nb("train sartm --dry_run --dataset fmb", root)
    assert said.code == 1 and "dataset 'fmb' is not here" in said.error


def test_a_dry_run_says_which_weights_to_fetch(root):
    for split in ("train", "test"):
        for part in ("Visible", "Infrared", "Label"): (root / "fmb" / split / part).mkdir(parents=True)
        (root / "fmb" / split / "Visible/1.png").touch()
    said = sam_nb("train sartm --dry_run --dataset fmb --data_root fmb", root)
    assert said.code == 1 and "train 1, test 1" in said.out and "model: sam2-b+, not here" in said.out and "run `sam_nb fetch sam2-b+`" in said.error


def test_completion(root):
    "As the shell calls it."
    def complete(line):
        answers = root / "answers"
        sam_nb([], root, _ARGCOMPLETE="1", _ARGCOMPLETE_IFS="\n", COMP_LINE=line, COMP_POINT=str(len(line)), _ARGCOMPLETE_STDOUT_FILENAME=str(answers))
        return answers.read_text().split()
    assert "train" in complete("sam_nb tr")
    assert {"sartm", "quick"} <= {*complete("sam_nb train ")}
    assert complete("sam_nb train sartm --optim") == ["--optimizer"] and complete("sam_nb train sartm --optimizer m") == ["muon"]
    assert complete("sam_nb train sartm --dataset mf") == ["mfnet"] and "pst900" in complete("sam_nb train sartm --preset ")
    assert "sam2.1-b+" in complete("sam_nb fetch sam2.1")


def test_parameters_of_the_real_notebooks_are_understood():
    parameters = read_parameters(find_notebook("train", "sartm"))
    words = "--use_text_kl false --lr 1e-4 --steps none --aux_head none --released -p object_gate true --batch-size 4".split()
    values = read_command("train", "sartm", words, parameters)[1]
    assert values == dict(use_text_kl=False, lr=1e-4, steps=None, aux_head="none", released=True, object_gate=True, batch_size=4)


def test_every_job_notebook_has_parameters_that_the_command_can_read():
    for notebook in CHECKOUT.glob("nbs/*_*.ipynb"): assert {"dataset", "image", "names"} & set(read_parameters(notebook)), notebook.name


def test_a_run_keeps_its_notebook_and_is_told(root):
    said = sam_nb("train quick --run_name first", root)
    assert said.code == 0, said.error
    lines = said.out.splitlines()
    assert lines[0] == "first: train_quick.ipynb -> runs/first/notebook.ipynb" and "done quickly" in lines and said.error == ""
    shown = sam_nb("runs show last", root)
    assert shown.out.splitlines() == lines[-len(shown.out.splitlines()):] and "first: quick on demo, finished" in shown.out
    cells = json.loads((root / "runs/first/notebook.ipynb").read_text())["cells"]
    assert [c["metadata"]["tags"] for c in cells[:2]] == [["parameters"], ["injected-parameters"]]
    assert 'run_name = "first"' in "".join(cells[1]["source"])


def test_a_chosen_place_for_the_notebook(root):
    said = sam_nb("train quick --run_name elsewhere --notebook out/my.ipynb --no-notebook-log", root)
    assert said.code == 0 and "done quickly" not in said.out
    assert (root / "out/my.ipynb").exists() and not (root / "runs/elsewhere/notebook.ipynb").exists()


@pytest.fixture(scope="module")
def interrupted(root):
    "A run that Ctrl-C stopped: the terminal sends it to the whole group, of which the kernel is no part."
    process = start("train toy --run_name stopped --slow 0.05 --epochs 3", root)
    log = root / "runs/stopped/metrics.jsonl"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 3, process)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=30)
    return process.returncode, out, error


def test_control_c_saves_and_marks_the_run(root, interrupted):
    code, out, error = interrupted
    assert code == 130 and "TrainingInterrupted: interrupted at step" in error and "resume='stopped'" in error and "Traceback" not in error
    run = Run.open("stopped", root / "runs")
    assert run.status == "interrupted" and run.last.exists()
    cells = json.loads((root / "runs/stopped/notebook.ipynb").read_text())["cells"]
    assert any(o["output_type"] == "error" and o["ename"] == "TrainingInterrupted" for c in cells for o in c.get("outputs", []))
    assert "go on with    sam_nb train toy --resume stopped" in sam_nb("runs show stopped", root).out


def test_a_resumed_run_repeats_its_values_and_keeps_both_notebooks(root, interrupted):
    said = sam_nb("train toy --resume stopped --epochs 5", root)
    assert said.code == 1 and "run 'stopped' had another recipe:\n    epochs: 3 -> 5" in said.error and said.cpu < 2
    said = sam_nb("train toy --resume last", root)  # last: of this method
    assert said.code == 0, said.error
    assert "run stopped: goes on at step" in said.out and "epoch 3/3" in said.out and Run.open("stopped", root / "runs").status == "finished"
    assert {"notebook.ipynb", "notebook-2.ipynb"} <= {p.name for p in (root / "runs/stopped").iterdir()}


def test_a_killed_kernel_is_told(root):
    process = start("train quick --run_name killed --slow 30", root)
    wait_for(lambda: "killed" in runs(root) and status(root, "killed") == "running", process)
    os.kill(Run.open("killed", root / "runs").info["process"]["pid"], signal.SIGKILL)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 1 and "killed from outside; most often the machine ran out of memory" in error and "--resume" in error
    assert "Traceback" not in error and status(root, "killed") == "failed"


def test_a_job_on_slurm(root):
    "With stand-ins for Slurm's commands; what the job then does is tested with cluster=local, in the notebook 81_launch.jobs."
    tools = root / "bin"
    tools.mkdir()
    for name, text in {"srun": "", "sbatch": 'cp "${@: -1}" "$SAM_NB_ROOT/script.sh"; echo Submitted batch job 4711'}.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    said = sam_nb("train quick --run_name sent --slurm partition=gpu,gpus_per_node=1,timeout_min=600,account=me", root, PATH=path)
    assert said.code == 0 and "sent: submitted as job 4711; logs in runs/sent/slurm" in said.out, said.error
    script = (root / "script.sh").read_text()
    for wanted in ("--partition=gpu", "--gpus-per-node=1", "--time=600", "--account=me", "--job-name='sam_nb sent'"): assert wanted in script, script
    said = sam_nb("train quick --run_name unsent --slurm partion=gpu", root, PATH=path)
    assert said.code == 1 and "did you mean 'partition'?" in said.error and not (root / "runs/unsent").exists()


def test_slurm_runs_the_notebook_in_its_job(root):
    said = sam_nb("train quick --run_name here --slurm cluster=local", root)
    assert said.code == 0, said.error
    wait_for(lambda: "here" in runs(root) and status(root, "here") == "finished", Forever)


class Forever:
    "A process that does not end."
    poll = communicate = staticmethod(lambda: None)


def test_data_commands(root, monkeypatch, capfd):
    "In this process, which has torch already."
    monkeypatch.setenv("SAM_NB_ROOT", str(root))
    monkeypatch.chdir(root)
    def sam_nb(words): return main(words.split()), *capfd.readouterr()
    assert sam_nb("demo-data street --size 32 --train 4 --val 2 --test 2 --layout mfnet --root data/small") == (0, "data/small\n", "")
    code, out, error = sam_nb("check mfnet --data_root data/small --split train --split test")
    assert code == 0 and "train: 4 of 4 pairs read, 0 errors" in out and "test: 2 of 2 pairs read" in out, out + error
    picture = sorted((root / "data/small/images").glob("*.png"))[0]
    picture.write_bytes(picture.read_bytes()[:300])
    code, out, error = sam_nb("check mfnet --data_root data/small --split train")
    assert code == 1 and "4 of 4 pairs read, 1 errors" in out and picture.name in out and "to do: copy this file again" in out


def test_fetch_lists(root):
    said = sam_nb("fetch", root)
    assert said.code == 0 and "sam2-b+" in said.out and "in checkpoints/" in said.out
    assert max(map(len, said.out.splitlines())) <= 100 and "not here" in said.out and "licence: Apache-2.0" in said.out


def test_a_closed_pipe_is_no_error(root):
    said = run(["bash", "-c", f"{sys.executable} -c 'import sys; from sam_nb.cli import main; sys.exit(main())' fetch | head -1"], root)
    assert said.error == ""


def test_frames_become_saoms_data_and_panoramas(tmp_path, capsys):
    import cv2
    import numpy as np

    from sam_nb.datasets.saom_files import load_saom_metadata
    from sam_nb.demo.room import room_view
    for part in ("rgb", "instance"): (tmp_path / "frames" / part).mkdir(parents=True)
    for k in range(5):
        view = room_view(0, 0, 72 * k, 64)
        cv2.imwrite(str(tmp_path / f"frames/rgb/room_{k}.png"), view.images["rgb"][..., ::-1])
        cv2.imwrite(str(tmp_path / f"frames/instance/room_{k}.png"), view.instances.astype(np.uint16))
    assert main(["saom-data", str(tmp_path / "frames"), str(tmp_path / "single")]) == 0
    assert main(["saom-data", str(tmp_path / "frames"), str(tmp_path / "joined"), "--panoramas", "concatenate", "--roll"]) == 0
    assert main(["check", str(tmp_path / "single/metadata.json")]) == 0
    assert [len(load_saom_metadata(tmp_path / "single/metadata.json", s)) for s in ("train", "val")] == [4, 1]
    joined = load_saom_metadata(tmp_path / "joined/metadata.json")
    assert len(joined) == 1 and tuple(joined[0]["image"].shape) == (3, 64, 320)
    assert main(["saom-data", str(tmp_path / "frames"), str(tmp_path / "single")]) == 1 and "is not empty" in capsys.readouterr().err
    assert main(["saom-data", str(tmp_path / "frames"), str(tmp_path / "round"), "--panoramas", "cylindrical"]) == 1 and "field of view" in capsys.readouterr().err


def test_demo_panoramas(tmp_path, capsys):
    made = ["demo-data", "room", "--layout", "panorama", "--root", str(tmp_path / "panos"), "--size", "32", "--train", "2", "--val", "1", "--test", "0"]
    assert main(made) == 0 and main(["check", str(tmp_path / "panos/metadata.json")]) == 0
    assert "metadata train: 2 of 2 images read" in capsys.readouterr().out
    assert main(["demo-data", "street", "--layout", "panorama"]) == 1 and "panoramas are made of rooms" in capsys.readouterr().err
    assert main(made) == 0  # the same ones are there already
    assert main([*made[:-1], "1"]) == 1 and "test is 0, wanted 1" in capsys.readouterr().err
    assert main([*made[:-1], "1", "--overwrite"]) == 0 and main(["check", str(tmp_path / "panos/metadata.json"), "--split", "test"]) == 0
    assert "metadata test: 1 of 1 images read" in capsys.readouterr().out
    for idle in (["--hard", "1"], ["--workers", "2"]):
        assert main([*made, *idle]) == 1 and f"{idle[0]} does nothing for panoramas" in capsys.readouterr().err


def test_demo_aerial(tmp_path, capsys):
    made = ["demo-data", "aerial", "--root", str(tmp_path / "aerial"), "--size", "64", "--train", "2", "--val", "1", "--test", "1"]
    assert main(made) == 0 and (tmp_path / "aerial/RISORS_train.txt").read_text().strip()
    assert main(["demo-data", "room", "--layout", "risors"]) == 1 and "only aerial scenes" in capsys.readouterr().err
    assert main([*made, "--workers", "2"]) == 1 and "--workers does nothing for aerial scenes" in capsys.readouterr().err
    assert main([*made, "--hard", "2"]) == 1 and "hard is 1, wanted 2" in capsys.readouterr().err and main([*made, "--hard", "2", "--overwrite"]) == 0


def test_referring_data_goes_round(tmp_path, capsys):
    "Demo scenes through all three layouts, with what is lost said, and checked by their folder's name alone."
    from sam_nb.datasets.catalog import load_dataset
    made = ["demo-data", "aerial", "--root", str(tmp_path / "aerial"), "--size", "64", "--train", "2", "--val", "1", "--test", "1"]
    assert main(made) == 0
    assert main(["check", "demo_aerial", "--data_root", str(tmp_path / "aerial")]) == 0 and "demo_aerial hard: 1 of 1 images read" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "aerial")]) == 0 and "referring train: 2 of 2 images read" in capsys.readouterr().out
    assert main(["referring-data", str(tmp_path / "aerial"), str(tmp_path / "refer"), "--layout", "refer", "--name", "town"]) == 0
    assert "expressions that name nothing, as annotations of area 0" in capsys.readouterr().out
    assert main(["referring-data", str(tmp_path / "refer"), str(tmp_path / "phrases"), "--layout", "refsegrs"]) == 0
    said = capsys.readouterr().out
    assert "categories" in said and "lost: which targets share an image (5 images became" in said
    assert main(["referring-data", str(tmp_path / "refer"), str(tmp_path / "back"), "--layout", "risors"]) == 0
    before, after = (load_dataset("referring", "train", tmp_path / f, empty=True) for f in ("aerial", "back"))
    assert before.expressions == after.expressions
    for folder, images in (("refer", 2), ("back", 2), ("phrases", len(load_dataset("referring", "train", tmp_path / "phrases")))):
        capsys.readouterr()
        code, said = main(["check", str(tmp_path / folder)]), capsys.readouterr().out
        assert code == 0 and f"referring train: {images} of {images} images read" in said and ("target of area 0 (warning)" in said) == (folder != "back"), said
