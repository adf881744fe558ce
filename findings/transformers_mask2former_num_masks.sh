#!/usr/bin/env bash
# Mask2Former's loss in transformers divides by too small a number of masks when accelerate runs several processes.
#
# Versions:  transformers 5.24.0, accelerate 1.15.0, torch 2.14.1 (CPU, gloo), scipy 1.17.1, Python 3.11
# Behaviour: Mask2FormerLoss.get_num_masks is to give the mean number of target masks of a process (sum over processes divided by their number,
#            at least 1): with 6 masks in one process and 8 in the other, 7. Where an accelerate state exists (as in every Trainer or
#            Accelerator run), it calls accelerate's `reduce`, whose default is already the mean, and divides by the number of processes
#            again: 3.5. The mask and dice losses of a run with W processes are W times too large, those of the class are not, and nothing
#            says so. Without an accelerate state each process counts its own masks: 6 and 8.
# Output seen (2026-11-29):
#   without an accelerate state, 2 processes: process 0 counts 6.0, process 1 counts 8.0
#   with an accelerate state, 2 processes: process 0 counts 3.5, process 1 counts 3.5
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet torch==2.14.1 transformers==5.24.0 accelerate==1.15.0 scipy==1.17.1
cat > "$folder/count.py" <<'P'
import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def count(rank, folder, accelerated):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29571" if accelerated else "29572",
                      ACCELERATE_USE_CPU="true")
    if accelerated:
        from accelerate import PartialState
        PartialState(cpu=True, backend="gloo")
    else: dist.init_process_group("gloo", rank=rank, world_size=2)
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss
    loss = Mask2FormerLoss(Mask2FormerConfig(), {})
    labels = [torch.zeros(6 if rank == 0 else 8, dtype=torch.int64)]  # one image in each process
    with open(f"{folder}/{int(accelerated)}_{rank}", "w") as f: f.write(str(float(loss.get_num_masks(labels, torch.device("cpu")))))
    dist.destroy_process_group()


if __name__ == "__main__":
    folder = sys.argv[1]
    for accelerated in (False, True): mp.spawn(count, (folder, accelerated), nprocs=2)
    read = lambda a: [float(open(f"{folder}/{a}_{r}").read()) for r in (0, 1)]
    for a, words in ((0, "without"), (1, "with")):
        print(f"{words} an accelerate state, 2 processes: process 0 counts {read(a)[0]}, process 1 counts {read(a)[1]}")
    sys.exit(0 if (read(0), read(1)) == ([6.0, 8.0], [3.5, 3.5]) else 1)
P
"$folder/env/bin/python" "$folder/count.py" "$folder"
