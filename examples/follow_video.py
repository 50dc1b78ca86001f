"""Faces of a video followed, drawn with their numbers and ways, and written with the video's audio and times.

python follow_video.py in.mp4 out.mp4
"""

from __future__ import annotations

import sys

from facelm_sdk import Tracker, VideoReader, VideoWriter
from facelm_sdk.video.trails import Trails

source, target = sys.argv[1:]
reader, tracker, trails = VideoReader(source), Tracker(smoothing=True), Trails()
with VideoWriter(target, reader.fps, audio=reader.path) as writer:
    for seconds, frame in reader.timed():
        faces = tracker(frame)
        writer.write(trails(frame, faces), seconds)
        print(f"{seconds:.2f} s:", *(f"face {face.track_id}" for face in faces))
