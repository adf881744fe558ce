"""Write a Label Studio export, and draw it with the converter of its SDK. Needs label-studio-sdk and pycocotools."""
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from common import HERE, SIZE, picture, write_expected
from label_studio_sdk.converter import Converter, brush
from label_studio_sdk.converter.utils import convert_annotation_to_yolo_obb
from pycocotools import mask as coco

folder = HERE / "label_studio"
picture(folder / "images/photo.jpg")
H, W = SIZE
ring = np.zeros(SIZE, np.uint8)
ring[62:82, 93:118] = 255
ring[68:75, 100:110] = 0
ring[100, 100:110] = 1  # a faint edge of the brush


def region(kind, label, value, number):
    return {"id": f"r{number}", "type": f"{kind}labels", "from_name": kind, "to_name": "image", "origin": "manual", "image_rotation": 0,
            "original_width": W, "original_height": H, "value": {**value, f"{kind}labels": [label]}}


def share(points): return [[x / W * 100, y / H * 100] for x, y in points]


polygons = [("cat", [(20.43, 10.22), (52.74, 14.93), (47.16, 41.67), (30.02, 33.34), (17.83, 38.55)]),
            ("dog", [(70.62, 20.14), (76.94, 21.73), (74.25, 27.83)]),  # small
            ("cat", [(130.25, 95.53), (160, 95.53), (160, 120), (130.25, 120)])]  # at the border
results = [region("polygon", label, {"points": share(p), "closed": True}, k) for k, (label, p) in enumerate(polygons)]
results += [region("brush", "ring", {"format": "rle", "rle": brush.mask2rle(ring)}, 3),
            region("rectangle", "dog", {"x": 40, "y": 75, "width": 15, "height": 10, "rotation": 25}, 4),
            region("ellipse", "dog", {"x": 20.9, "y": 73.8, "radiusX": 12.6, "radiusY": 8.1, "rotation": 30}, 5)]
old = {"id": 1, "completed_by": 2, "was_cancelled": False, "created_at": "2024-01-01T10:00:00Z", "result": results[:1]}
new = {"id": 2, "completed_by": 1, "was_cancelled": False, "created_at": "2024-01-02T10:00:00Z", "result": results}
skipped = {"id": 3, "completed_by": 3, "was_cancelled": True, "created_at": "2024-01-03T10:00:00Z", "result": results[1:2]}
task = {"id": 7, "annotations": [old, new, skipped], "predictions": [{"id": 1, "result": results[:2]}], "file_upload": "3b8b4a3a-photo.jpg",
        "data": {"image": "/data/upload/4/3b8b4a3a-photo.jpg"}, "meta": {}, "project": 4}
(folder / "project-4.json").write_text(json.dumps([task]))

config = '<View><Image name="image" value="$image"/><PolygonLabels name="polygon" toName="image"><Label value="cat"/><Label value="dog"/></PolygonLabels></View>'
out = Path(tempfile.mkdtemp())
only = {**task, "annotations": [{**new, "result": results[:3]}], "data": {"image": str(folder / "images/photo.jpg")}}
(out / "in.json").write_text(json.dumps([only]))
Converter(config, str(out), download_resources=False).convert_to_coco(str(out / "in.json"), str(out), is_dir=False)
flat = [a["segmentation"] for a in json.loads((out / "result.json").read_text())["annotations"]]
corners = convert_annotation_to_yolo_obb({**results[4]["value"], "original_width": W, "original_height": H}, normalize=False)
flat.append([[float(v) for p in corners for v in p]])
drawn = [coco.decode(coco.frPyObjects(f, H, W)[0]) for f in flat]
painted = brush.decode_rle(results[3]["value"]["rle"]).reshape(H, W, 4)[..., 3] > 0
angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)  # no export of the tool draws ellipses: the outline of its documentation
a, (cx, cy), (rx, ry) = np.radians(30), (0.209 * W, 0.738 * H), (0.126 * W, 0.081 * H)
x, y = rx * np.cos(angle), ry * np.sin(angle)
outline = np.stack([cx + x * np.cos(a) - y * np.sin(a), cy + x * np.sin(a) + y * np.cos(a)], 1)
ellipse = coco.decode(coco.frPyObjects([outline.ravel().tolist()], H, W)[0])
names = [label for label, _ in polygons] + ["ring", "dog", "dog"]
write_expected(folder, f"label-studio-sdk {version('label-studio-sdk')}, opencv {cv2.__version__}", list(zip(names, [*drawn[:3], painted, drawn[3], ellipse])))
