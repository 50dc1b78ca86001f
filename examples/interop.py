"""Faces in other tools' words: COCO and .pts files, a table, supervision, and back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2

from facelm_sdk import Aligner, Face
from facelm_sdk.interop import coco, pts, supervision, table

picture = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("pictures") / "group.jpg")
image = cv2.imread(str(picture))
height, width = image.shape[:2]
faces = Aligner()(image)

dataset = coco.to_coco([coco.CocoImage(picture.name, width, height, faces)])
Path("coco.json").write_text(json.dumps(dataset))
pts.write_pts("face.pts", faces[0])
print("COCO holds", len(coco.from_coco(dataset)[picture.name]), "faces;", pts.read_pts("face.pts"))

row = table.to_row(faces[0])  # pandas.Series(row), or table.to_frame(faces) for all
print("a row of", len(row), "columns;", table.from_row(row))
print("and back from JSON:", Face.from_dict(json.loads(json.dumps(faces[0].to_dict()))))

try:
    import supervision as sv
except ImportError:
    sys.exit("supervision is not installed; the rest of this example draws with it")
detections = supervision.to_detections(faces)
annotated = sv.BoxCornerAnnotator().annotate(image.copy(), detections)
annotated = sv.VertexAnnotator(radius=2).annotate(annotated, supervision.to_keypoints(faces))
cv2.imwrite("supervision.jpg", annotated)
large = detections[detections.area > 2000]
print("large enough:", *supervision.from_detections(large), sep="\n  ")
