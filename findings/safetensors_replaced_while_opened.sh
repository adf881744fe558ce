#!/usr/bin/env bash
# safe_open(path, "pt") opens the file twice: while a writer replaces it by renaming, header and tensors may come from two different files.
#
# Versions:  safetensors 0.8.0, torch 2.14.1, numpy 2.4.6, Python 3.11
# Behaviour: the header is read from the file that was opened, and torch then maps the file by its path again. A writer that does what one should do
#            (write beside it, rename onto it, so that the path always holds a whole valid file) can come in between: the reader gets the metadata of
#            the earlier file with the tensors of the later one, without an error; or, if the later file is smaller, a RuntimeError about its mapping
#            size. With framework "np" the file is opened once, and every read is consistent. So numbers that must belong to the tensors (a step, a
#            checksum, a scale) are not safe in the metadata of a file that is being rewritten, unless the reader compares them with the tensors.
# Output seen (2026-11-29):
#   same size, pt: 123,874 reads consistent, 298 with the metadata of one file and the tensor of the other, 0 errors
#   same size, np: 292,201 reads consistent, 0 with the metadata of one file and the tensor of the other, 0 errors
#   two sizes, pt: 67,870 reads consistent, 89 with the metadata of one file and the tensor of the other, 91 errors
#   two sizes, np: 208,013 reads consistent, 0 with the metadata of one file and the tensor of the other, 0 errors
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet torch==2.14.1 safetensors==0.8.0 numpy==2.4.6
cat > "$folder/replaced.py" <<'P'
import multiprocessing
import os
import sys
import tempfile
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def write(path, sizes, until):
    "Replace the file by a rename, again and again: every tensor holds the number that its metadata says."
    while time.monotonic() < until:
        for number, size in enumerate(sizes):
            save_file({"x": torch.full((size,), float(number))}, f"{path}.new", {"number": str(number)})
            os.replace(f"{path}.new", path)


def read(path, framework, until):
    consistent = mixed = errors = 0
    while time.monotonic() < until:
        try:
            with safe_open(path, framework) as file: number, x = int(file.metadata()["number"]), file.get_tensor("x")
        except RuntimeError: errors += 1; continue
        if bool((x == number).all()): consistent += 1
        else: mixed += 1
    return consistent, mixed, errors


seen = {}
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "weights.safetensors")
    for what, sizes in (("same size", (1000, 1000)), ("two sizes", (1000, 500))):
        for framework in ("pt", "np"):
            save_file({"x": torch.zeros(sizes[0])}, path, {"number": "0"})
            until = time.monotonic() + 10
            writer = multiprocessing.get_context("fork").Process(target=write, args=(path, sizes, until))
            writer.start()
            seen[what, framework] = consistent, mixed, errors = read(path, framework, until)
            writer.join()
            print(f"{what + ',':<10} {framework}: {consistent:,} reads consistent, {mixed:,} with the metadata of one file and the tensor of the other, {errors:,} errors")
as_seen = seen["same size", "pt"][1] > 0 and sum(seen["two sizes", "pt"][1:]) > 0 and not any(sum(seen[what, "np"][1:]) for what in ("same size", "two sizes"))
sys.exit(0 if as_seen else "this has changed")
P
"$folder/env/bin/python" "$folder/replaced.py"
