"""Write a Supervisely project with Supervisely's SDK, and record the masks that it draws. Needs supervisely."""
import json
from importlib.metadata import version

import cv2
import numpy as np
import supervisely as sly
from common import HERE, SIZE, picture, write_expected

folder = HERE / "supervisely"
picture(folder / "photos/img/photo.jpg")
ring = np.zeros((24, 30), bool)
ring[2:22, 3:28] = True
ring[8:15, 10:20] = False


def polygon(corners, holes=()): return sly.Polygon.from_json({"points": {"exterior": corners, "interior": [list(h) for h in holes]}})


cat, dog, hoop = (sly.ObjClass(name, sly.AnyGeometry, color) for name, color in (("cat", [255, 0, 0]), ("dog", [0, 255, 0]), ("ring", [0, 0, 255])))
shapes = [(cat, polygon([[20.4, 10.2], [52.7, 14.9], [47.1, 41.6], [30.0, 33.3], [17.8, 38.5]])),
          (dog, polygon([[70, 20], [76, 21], [74, 27]])),  # small
          (hoop, sly.Bitmap(ring, origin=sly.PointLocation(60, 90))),  # with a hole
          (cat, sly.Rectangle(95, 130, 119, 159)),  # at the border
          (hoop, polygon([[60, 85], [90, 85], [90, 112], [60, 112]], [[[66, 90], [80, 90], [80, 104], [66, 104]], [[83, 106], [87, 106], [87, 110], [83, 110]]])),
          (dog, polygon([[15, 60], [40, 62], [45, 90], [20, 95]]))]
meta = sly.ProjectMeta(sly.ObjClassCollection([dog, cat, hoop]))
annotation = sly.Annotation(SIZE, [sly.Label(geometry, cls) for cls, geometry in shapes])
(folder / "photos/ann").mkdir(parents=True, exist_ok=True)
(folder / "meta.json").write_text(json.dumps(meta.to_json()))
(folder / "photos/ann/photo.jpg.json").write_text(json.dumps(annotation.to_json()))
drawn = []
for label in sly.Annotation.from_json(annotation.to_json(), meta).labels:
    mask = np.zeros(SIZE, np.uint8)
    label.geometry.draw(mask, 1)
    drawn.append((label.obj_class.name, mask))
write_expected(folder, f"supervisely {version('supervisely')}, opencv {cv2.__version__}", drawn)
