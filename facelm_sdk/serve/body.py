"""The picture in a request: its body as it is, or the one file of a form."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from python_multipart.multipart import File, FormParser, parse_options_header

from .problems import Refused

FORM = "multipart/form-data"
ACCEPTED = f"send the picture as it is, with Content-Type image/jpeg and the like, or as the one file of a {FORM}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture file's bytes, and the name it came with."""

    data: bytes
    name: str = ""


def check_type(request: Request) -> None:
    """Raise Refused (415) for what is not a picture file or a form."""
    kind = _kind(request)
    if not (kind.startswith("image/") or kind in ("application/octet-stream", FORM)):
        told = f"Content-Type is {kind}" if kind else "there is no Content-Type"
        raise Refused(415, "unsupported_media_type", f"{told}; {ACCEPTED}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "unsupported_media_type", f"the body has a Content-Encoding; {ACCEPTED}")


async def read_body(request: Request, most: int) -> bytes:
    """The body, of at most ``most`` bytes. Raises Refused (413) as soon as it is known to be more."""
    told = f"the body has more than {most:,} bytes, the most this server takes"
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > most:
        raise Refused(413, "too_large", told)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refused(413, "too_large", told)
        parts.append(part)
    return b"".join(parts)


def upload(request: Request, body: bytes) -> Upload:
    """The picture of a body. Raises Refused (400) for a form without a file or with several."""
    return _of_form(request, body) if _kind(request) == FORM else Upload(body)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _of_form(request: Request, body: bytes) -> Upload:
    files: list[File] = []
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary")
    in_memory = {"MAX_MEMORY_FILE_SIZE": float("inf")}
    try:
        parser = FormParser(FORM, None, files.append, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except ValueError as error:
        raise Refused(400, "bad_request", f"the form cannot be read ({error}); {ACCEPTED}") from error
    if len(files) != 1:
        raise Refused(400, "bad_request", f"the form has {len(files)} files; {ACCEPTED}")
    (file,) = files
    file.file_object.seek(0)
    return Upload(file.file_object.read(), (file.file_name or b"").decode("utf-8", "backslashreplace"))
