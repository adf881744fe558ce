"""Draw a CVAT file (images, XML 1.1) as CVAT's mask exports do. Needs datumaro, whose importer and transforms CVAT exports with."""
import math
import tempfile
from pathlib import Path

import cv2
import datumaro
import numpy as np
from common import HERE, SIZE, picture, runs, write_expected
from datumaro.plugins.transforms import PolygonsToMasks
from pycocotools import mask as coco

folder = HERE / "cvat"
picture(folder / "images/photo.jpg")
ring = np.zeros((24, 30), bool)
ring[2:22, 3:28] = True
ring[8:15, 10:20] = False


def points(corners): return ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)


def shape(kind, label, more=""): return label, f'<{kind} label="{label}" source="manual" occluded="0" {more}>\n    </{kind}>'
def polygon(label, corners, more='z_order="0"'): return shape("polygon", label, f'points="{points(corners)}" {more}')


group = 'z_order="0" group_id="1"'
shapes = [polygon("cat", [(20.43, 10.22), (52.74, 14.93), (47.16, 41.67), (30.02, 33.34), (17.83, 38.55)]),
          polygon("dog", [(70.62, 20.14), (76.94, 21.73), (74.25, 27.83)]),  # small
          shape("mask", "ring", f'rle="{", ".join(map(str, runs(ring)))}" left="90" top="60" width="30" height="24" z_order="0"'),  # with a hole
          shape("box", "cat", 'xtl="130.25" ytl="95.50" xbr="160.00" ybr="120.00" z_order="0"'),  # at the border
          shape("box", "dog", 'xtl="60.00" ytl="90.00" xbr="85.00" ybr="102.00" rotation="25.00" z_order="0"'),
          shape("ellipse", "dog", 'cx="33.40" cy="88.60" rx="20.30" ry="9.70" rotation="30.00" z_order="0"'),
          polygon("cat", [(25, 20), (60, 20), (60, 30), (25, 30)], 'z_order="1"'),  # lies on the first
          polygon("ring", [(100.03, 10.04), (112.35, 12.83), (105.54, 25.16)], group), polygon("ring", [(125.05, 12.02), (139.64, 14.16), (131.23, 30.95)], group)]
labels = "".join(f"<label><name>{name}</name><color>#fa3253</color><type>any</type><attributes></attributes></label>" for name in ("dog", "cat", "ring"))
head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
head += f'  <meta><task><id>1</id><size>1</size><mode>annotation</mode><labels>{labels}</labels></task></meta>\n'
body = "".join(f"    {text}\n" for _, text in shapes)
image = f'  <image id="0" name="photo.jpg" width="{SIZE[1]}" height="{SIZE[0]}">\n'
(folder / "annotations.xml").write_text(f"{head}{image}{body}  </image>\n</annotations>\n")


def drawn(text):
    "The masks that datumaro's importer of this format and its transform to masks make of some shapes."
    alone = Path(tempfile.mkdtemp()) / "alone.xml"
    picture(alone.parent / "images/photo.jpg")
    alone.write_text(f"{head}{image}{text}</image></annotations>")
    masks = np.zeros(SIZE, bool)
    for item in datumaro.Dataset.import_from(str(alone), "cvat"):
        for ann in item.annotations:
            if hasattr(ann, "as_polygon"): masks |= PolygonsToMasks.convert_polygon(ann, *SIZE).image.astype(bool)
            else: masks |= np.asarray(ann.image, bool)
    return masks


def rotated(x0, y0, x1, y1, degrees):
    "A rotated box as CVAT's own transform RotatedBoxesToPolygons makes it a polygon."
    a, cx, cy = math.radians(degrees), x0 + (x1 - x0) / 2, y0 + (y1 - y0) / 2
    turned = [(cx + math.cos(a) * (x - cx) - math.sin(a) * (y - cy), cy + math.sin(a) * (x - cx) + math.cos(a) * (y - cy))
              for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    return coco.decode(coco.frPyObjects([[v for p in turned for v in p]], *SIZE)[0])


masks = {k: drawn(text) for k, (_, text) in enumerate(shapes[:7]) if k not in (4, 5)}
masks[4] = rotated(60, 90, 85, 102, 25)
masks[5] = cv2.ellipse(np.zeros(SIZE, np.uint8), (33, 89), (20, 10), 30, 0, 360, 255, thickness=-1)  # CVAT's EllipsesToMasks
masks[7] = drawn(shapes[7][1] + shapes[8][1])  # one group: datumaro's COCO export joins it
write_expected(folder, f"datumaro {datumaro.__version__}, opencv {cv2.__version__}", [(shapes[k][0], masks[k]) for k in sorted(masks)])
