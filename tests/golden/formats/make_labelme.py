"""Write a LabelMe file with LabelMe, and record the masks that LabelMe draws of it. Needs labelme."""

import labelme
import numpy as np
import PIL
from common import HERE, SIZE, picture, write_expected
from labelme import utils
from labelme._label_file import LabelFile, read_label_file

folder = HERE / "labelme"
picture(folder / "photo.jpg")
ring = np.zeros((24, 30), bool)
ring[2:22, 3:28] = True
ring[8:15, 10:20] = False


def shape(label, points, kind, group=None, mask=None):
    encoded = None if mask is None else utils.img_arr_to_b64(mask.astype(np.uint8))
    return {"label": label, "points": points, "group_id": group, "description": "", "shape_type": kind, "flags": {}, "mask": encoded}


shapes = [shape("cat", [[20.4, 10.2], [52.7, 14.9], [47.1, 41.6], [30.0, 33.3], [17.8, 38.5]], "polygon"),
          shape("dog", [[70.6, 20.1], [76.9, 21.7], [74.2, 27.8]], "polygon"),  # small
          shape("ring", [[90.0, 60.0], [119.0, 83.0]], "mask", mask=ring),  # with a hole
          shape("cat", [[159.5, 118.7], [130.25, 95.5]], "rectangle"),  # at the border, drawn from its lower right corner
          shape("dog", [[40.5, 85.5], [49.0, 92.5]], "circle"),
          shape("cat", [[100.0, 10.0], [112.3, 12.8], [105.5, 25.1]], "polygon", 3), shape("cat", [[125.0, 12.0], [139.6, 14.1], [131.2, 30.9]], "polygon", 3),
          shape("crack", [[5.5, 60.0], [22.0, 70.5], [24.5, 100.0]], "linestrip"),
          shape("ring", [[60.3, 95.1], [80.9, 88.8], [86.2, 106.0], [65.6, 112.3]], "oriented_rectangle"),
          shape("dog", [[-6.5, 50.2], [9.8, 44.4], [7.1, 58.9]], "polygon")]  # beyond the border
LabelFile().save(str(folder / "photo.json"), shapes, "photo.jpg", *SIZE)
groups: dict = {}
for k, s in enumerate(read_label_file(str(folder / "photo.json")).shapes):
    groups.setdefault((s["label"], k if s["group_id"] is None else f"group {s['group_id']}"), []).append(s)
drawn = [(label, utils.shapes_to_label(SIZE, same, {label: 1})[0] > 0) for (label, _), same in groups.items()]
write_expected(folder, f"labelme {labelme.__version__}, pillow {PIL.__version__}", drawn)
