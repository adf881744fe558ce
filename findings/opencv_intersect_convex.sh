#!/usr/bin/env bash
# OpenCV's intersectConvexConvex gives a wrong area for about one in seven pairs of turned rectangles that share edges, up to the larger of the two.
#
# Versions:  opencv-python-headless 5.0.0.93, numpy 2.4.6, Python 3.11
# Behaviour: the intersection of two convex polygons is computed in float32; where edges lie on one another but for rounding, it may return the
#            larger polygon, or too small a part. A unit square within a rectangle of 1 x 2, both turned by 2 radians, has an intersection of area 1;
#            2 is returned (an IoU of 2). Without a turn, or where no edges coincide, the areas are right. shapely computes both.
# Output seen (2026-11-29):
#   unit square in a rectangle of 1 x 2: 1.000 as drawn, 2.000 turned by 2 radians
#   of 1000 turned pairs with common edges 148 wrong by more than 0.001; of 1000 without 0
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet opencv-python-headless==5.0.0.93 numpy==2.4.6
cat > "$folder/convex.py" <<'P'
import sys

import cv2
import numpy as np


def shared(a, b, angle, x=0.0):
    "Area of the intersection of rectangles (width, height) with one corner in common, the second moved along x; all turned."
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = [np.float32((np.array([[0, 0], [w, 0], [w, h], [0, h]]) + (move, move)) @ turn) for (w, h), move in ((a, 0), (b, x))]
    return cv2.intersectConvexConvex(*corners)[0]


print(f"unit square in a rectangle of 1 x 2: {shared((1, 1), (1, 2), 0):.3f} as drawn, {shared((1, 1), (1, 2), 2):.3f} turned by 2 radians")
chance, wrong = np.random.default_rng(0), {0.0: 0, 0.3: 0}
for x in wrong:
    for _ in range(1000):
        a, b = chance.integers(1, 6, (2, 2))
        truth = np.prod(np.maximum(np.minimum(a, b + x) - x, 0))
        wrong[x] += abs(shared(a, b, chance.random() * np.pi, x) - truth) > 1e-3
print(f"of 1000 turned pairs with common edges {wrong[0.0]} wrong by more than 0.001; of 1000 without {wrong[0.3]}")
sys.exit(0 if abs(shared((1, 1), (1, 2), 2) - 2) < 1e-3 and wrong[0.0] > 100 and not wrong[0.3] else 1)
P
"$folder/env/bin/python" "$folder/convex.py"
