"""Files by path and by URL, whole or not at all."""

from __future__ import annotations

import io
import pickle

import pytest

from facelm_sdk.errors import InputError
from facelm_sdk.jobs.storage import Place, Writing


def test_places_by_path_and_by_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, url = Place.of("a.parquet"), Place.of(f"{tmp_path.as_uri()}/x y/a%20b.TXT?option=1")
    assert here.url == str(tmp_path / "a.parquet") and here.is_local and here.suffix == ".parquet"
    assert url.suffix == ".txt" and not url.is_local and pickle.loads(pickle.dumps(url)) == url
    assert url.beside(".parts").url == f"{tmp_path.as_uri()}/x y/a%20b.TXT.parts?option=1"
    assert (Place("s3://bucket") / "key").url == "s3://bucket/key"
    plain = Place.of(f"{tmp_path.as_uri()}/x y/a%20b.TXT")
    assert plain.find()[1] == f"{tmp_path}/x y/a b.TXT"
    Place.of(tmp_path / "x y").make_folder()
    with plain.writing() as file:
        file.write(b"data")
    assert plain.read() == b"data" and plain.kind() == "file" and plain.state()[0] == 4
    assert [*Place.of(tmp_path / "x y").names()] == [("a b.TXT", "file")]
    assert [*Place.of(tmp_path / "nowhere").names()] == []
    Place.of(tmp_path / "x y").remove()
    assert plain.kind() == "none" and not (tmp_path / "x y").exists()
    with pytest.raises(InputError, match="pyarrow's file systems are"):
        Place.of("gopher://host/x").kind()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    place = Place.of(tmp_path / "a.bin")
    place.write(b"old")
    with pytest.raises(RuntimeError), place.writing() as file:
        file.write(b"half")
        raise RuntimeError
    assert place.read() == b"old" and [path.name for path in tmp_path.iterdir()] == ["a.bin"]


class Store:
    """An object store: what is closed is there."""

    type_name = "s3"

    def __init__(self):
        self.objects = {}

    def open_output_stream(self, path):
        store = self

        class Upload(io.BytesIO):
            def close(self):
                store.objects[path] = self.getvalue()
                super().close()

        return Upload()

    def delete_file(self, path):
        del self.objects[path]


def test_an_object_is_put_at_its_place_or_not_at_all():
    store = Store()
    with Writing(store, "bucket/a") as file:
        file.write(b"whole")
    with pytest.raises(RuntimeError), Writing(store, "bucket/b") as broken:
        broken.write(b"half")
        raise RuntimeError
    assert store.objects == {"bucket/a": b"whole"}


def test_a_draft_may_lie_in_another_folder(tmp_path):
    """So a run that is killed while it writes leaves nothing beside its output."""
    drafts = tmp_path / "parts"
    drafts.mkdir()
    with Place.of(tmp_path / "a.parquet").writing(Place.of(drafts)) as file:
        file.write(b"whole")
        assert [path.suffix for path in drafts.iterdir()] == [".tmp"]
        assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert (tmp_path / "a.parquet").read_bytes() == b"whole" and not any(drafts.iterdir())
