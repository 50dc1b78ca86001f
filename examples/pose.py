"""Where each face looks, whether its eyes and mouth are open, and a copy of the picture with the heads' axes."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from facelm_sdk import Aligner
from facelm_sdk.images.draw import draw

picture = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("pictures") / "hopper.jpg")
image = cv2.imread(str(picture))
faces = Aligner()(image)
for face in faces:
    yaw, pitch, roll = face.pose  # degrees: to the picture's right, up, clockwise
    left, right = face.eye_openness  # eye aspect ratios: about 0.3 open, below 0.2 closed
    print(f"looks {yaw:+.0f} {pitch:+.0f}, tilted {roll:+.0f}")
    print(f"eyes {left:.2f} {right:.2f}, mouth {face.mouth_openness:.2f}")
cv2.imwrite("pose.jpg", draw(image, faces, pose=True))
