"""Faces of a picture, their landmarks, the ArcFace crop, and an annotated copy."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from facelm_sdk import Aligner
from facelm_sdk.images.draw import draw

picture = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("pictures") / "collins.jpg")
image = cv2.imread(str(picture))
aligner = Aligner(flip=True)
faces = aligner(image)
for face in faces:
    print(face, "nose tip", face.landmarks[30])
    aligned = face.crop(image, size=112)  # what a recognition network wants
    print("ArcFace crop", aligned.shape)
cv2.imwrite("annotated.jpg", draw(image, faces))
