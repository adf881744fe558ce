"""A folder as Roboflow's "Semantic Segmentation Masks" is documented. Needs numpy and pillow only: the tool is a server."""
import numpy as np
from common import HERE, SIZE, picture, write_expected
from PIL import Image

folder = HERE / "roboflow"
name = "photo_jpg.rf.0123456789abcdef"
picture(folder / f"train/{name}.jpg")
classes = np.zeros(SIZE, np.uint8)
classes[10:40, 20:60] = 1
classes[20:30, 30:45] = 0  # a hole
classes[60:66, 70:78] = 2  # small
classes[95:, 130:] = 2  # at the border
classes[70:90, 10:40] = 1
Image.fromarray(classes).save(folder / f"train/{name}_mask.png")
(folder / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
boxes = {"cat": [(10, 40, 20, 60), (70, 90, 10, 40)], "dog": [(60, 66, 70, 78), (95, 120, 130, 160)]}
drawn = []
for number, (label, places) in enumerate(boxes.items(), 1):
    for y0, y1, x0, x1 in places:
        mask = np.zeros(SIZE, bool)
        mask[y0:y1, x0:x1] = classes[y0:y1, x0:x1] == number
        drawn.append((label, mask))
write_expected(folder, "none", drawn)
