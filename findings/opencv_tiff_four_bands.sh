#!/usr/bin/env bash
# OpenCV multiplies the colours of a four-band 8-bit TIFF by its fourth band, without an error, even with IMREAD_UNCHANGED.
#
# Versions:  opencv-python-headless 5.0.0.93, rasterio 1.4.4 (GDAL 3.10.3), numpy 2.4.6, Python 3.11
# Behaviour: an 8-bit TIFF of four bands, as rasterio writes it by default (red, green, blue, near infrared; the fourth band gets the tag of an
#            unassociated alpha), comes back with its colours multiplied by the fourth band / 255: where near infrared is dark, the picture is
#            near black. IMREAD_UNCHANGED promises the stored values; of a PNG with alpha it returns them. rasterio reads what was written.
# Output seen (2026-11-29):
#   TIFF: stored means 100 100 100 50, read 20 20 20 50
#   PNG:  stored means 100 100 100 50, read 100 100 100 50
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet opencv-python-headless==5.0.0.93 rasterio==1.4.4 numpy==2.4.6
cat > "$folder/bands.py" <<'P'
import sys
import warnings

import cv2
import numpy as np
import rasterio

warnings.simplefilter("ignore")


folder = sys.argv[1]
stored = np.full((4, 40, 50), 100, np.uint8)
stored[3] = 50
with rasterio.open(f"{folder}/bands.tif", "w", driver="GTiff", count=4, height=40, width=50, dtype="uint8") as f: f.write(stored)
with rasterio.open(f"{folder}/bands.tif") as f: assert (f.read() == stored).all()
cv2.imwrite(f"{folder}/bands.png", np.ascontiguousarray(stored.transpose(1, 2, 0)))
tiff, png = (cv2.imread(f"{folder}/bands.{e}", cv2.IMREAD_UNCHANGED).reshape(-1, 4).mean(0) for e in ("tif", "png"))
for name, means in (("TIFF:", tiff), ("PNG: ", png)): print(name, "stored means 100 100 100 50, read", *(f"{m:.0f}" for m in means))
sys.exit(0 if np.abs(tiff - [20, 20, 20, 50]).max() < 2 and (png == [100, 100, 100, 50]).all() else 1)
P
"$folder/env/bin/python" "$folder/bands.py" "$folder" 2>/dev/null
