"""dlib's XML of boxes and parts, as imglab writes it and dlib.train_shape_predictor reads it."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

import numpy as np

from .. import markup as markups
from ..errors import InputError
from ..types import Face


def to_dlib_xml(pictures: Iterable[tuple[str, Iterable[Face]]]) -> str:
    """The XML of pictures' names and their faces.

    dlib's boxes and parts are whole pixels, to which they are rounded; parts are named by their index, 00 to 67 of 68.
    """
    dataset = ElementTree.Element("dataset")
    images = ElementTree.SubElement(dataset, "images")
    for name, faces in pictures:
        image = ElementTree.SubElement(images, "image", file=name)
        for face in faces:
            left, top, right, bottom = np.rint(face.bbox).astype(int).tolist()
            sides = {"top": top, "left": left, "width": right - left, "height": bottom - top}
            box = ElementTree.SubElement(image, "box", {key: str(value) for key, value in sides.items()})
            digits = len(str(len(face.landmarks) - 1))
            for index, (x, y) in enumerate(np.rint(face.landmarks).astype(int).tolist()):
                ElementTree.SubElement(box, "part", name=f"{index:0{max(2, digits)}d}", x=str(x), y=str(y))
    ElementTree.indent(dataset)
    return f"<?xml version='1.0' encoding='UTF-8'?>\n{ElementTree.tostring(dataset, encoding='unicode')}\n"


def from_dlib_xml(text: str) -> dict[str, list[Face]]:
    """The faces of each picture, by its name; the number of parts says the markup. Parts go by their names' order.

    Raises InputError for what is not dlib's XML or has a box without parts, MarkupError for a number of parts that no
    markup has.
    """
    try:
        root = ElementTree.fromstring(text.encode())
        return {
            image.attrib["file"]: [_face(box) for box in image.iter("box") if box.get("ignore") != "1"]
            for image in root.iter("image")
        }
    except (ElementTree.ParseError, KeyError) as error:
        raise InputError(f"not dlib's XML of images, boxes and parts ({error})") from error


def _face(box: ElementTree.Element) -> Face:
    try:
        parts = sorted(box.iter("part"), key=lambda part: (len(part.attrib["name"]), part.attrib["name"]))
        points = [(float(part.attrib["x"]), float(part.attrib["y"])) for part in parts]
        left, top, width, height = (float(box.attrib[key]) for key in ("left", "top", "width", "height"))
    except ValueError as error:
        raise InputError(f"not dlib's XML: boxes and parts are numbers ({error})") from error
    if not points:
        raise InputError("a box of dlib's XML has no parts; a face needs its landmarks")
    bbox = (left, top, left + width, top + height)
    return Face.of_landmarks(points, markups.with_points(len(points)).name, bbox=bbox)
