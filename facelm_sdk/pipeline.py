"""Pipeline: detector, crops and landmarks in one file, as an Aligner runs it."""

from __future__ import annotations

from typing import Any

from . import profile as profiling
from .contract import PipelineSpec
from .errors import InputError
from .runtimes.base import Session
from .types import Face, ImageArray


class Pipeline:
    """Picture in, faces out, by one graph. What is fixed in the file can be stated, not changed (InputError).

    ``session``: of a model whose contract's task is ``pipeline``. ``det_size`` is "auto" (what the file has) or the
    file's own. A ``det_thresh`` above the file's own drops faces after the fact; ``flip`` as in Landmarker.
    """

    def __init__(
        self, session: Session, *, flip: bool | None = None, det_size: Any = "auto", det_thresh: float | None = None
    ) -> None:
        spec = session.spec
        if not isinstance(spec, PipelineSpec):
            raise InputError(f"{spec.name} is a model for {spec.task}; one for {PipelineSpec.task} is needed")
        self.session, self.spec = session, spec
        if det_size not in ("auto", spec.det_size):
            raise InputError(
                f"{spec.name} is one file for det_size {_text(spec.det_size)}, not {_text(det_size)}: leave det_size "
                f"out, or export another (facelm-export pipeline --det-size {_text(det_size)})"
            )
        if flip is not None and flip != spec.flip:
            raise InputError(
                f"{spec.name} is one file {'with' if spec.flip else 'without'} flip averaging: leave flip out, or "
                f"export another ({'without' if spec.flip else 'with'} --flip)"
            )
        self.det_thresh = spec.det_thresh if det_thresh is None else float(det_thresh)
        if not spec.det_thresh <= self.det_thresh <= 1:
            raise InputError(
                f"{spec.name} is one file that drops faces below {spec.det_thresh:g}: det_thresh is from there to 1, "
                f"not {det_thresh}; for a lower one export another (facelm-export pipeline --det-thresh {det_thresh})"
            )

    def __call__(self, image: ImageArray, max_faces: int | None = None) -> list[Face]:
        """The faces of a picture (H, W, 3) uint8 BGR, best score first, at most ``max_faces``."""
        with profiling.stage(profiling.PIPELINE):
            boxes, scores, kps, landmarks, *confidence = self.session.run({"image": image})
        kept = int((scores >= self.det_thresh).sum())
        return [
            Face(
                bbox=boxes[i],
                score=float(scores[i]),
                kps=kps[i],
                landmarks=landmarks[i],
                scores=confidence[0][i] if confidence else None,
                markup=self.spec.markup,
                transform=self.spec.crop.of_detection(self.spec.markup, boxes[i], kps[i]),
            )
            for i in range(kept if max_faces is None else min(kept, max_faces))
        ]


def _text(det_size: Any) -> str:
    """As the command line takes it."""
    return "x".join(map(str, det_size)) if isinstance(det_size, (tuple, list)) else str(det_size)
