"""Which pictures a job is of, and how their parts are read."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facelm_sdk.errors import InputError
from facelm_sdk.jobs import inputs
from facelm_sdk.jobs.inputs import AS_LARGE, LARGEST, SMALLEST, Reader, plan
from facelm_sdk.jobs.storage import Place


@pytest.fixture
def planned(tmp_path):
    """Plans sources, reads all of their parts, and gives the parts and what was read."""

    def build(*sources, column=None, root="/here"):
        listing = Place.of(tmp_path / "listing.jsonl")
        files, parts = plan([str(source) for source in sources], listing, column, lambda _: None)
        reader = Reader(listing, tuple(files), root)
        return parts, [found for part in parts for found in reader.read(part)], reader

    return build


def write(where, groups=1000, **columns):
    pq.write_table(pa.table(columns), where, row_group_size=groups)
    return where


def test_folders_lists_and_patterns_in_order(planned, tmp_path):
    for name in ("b/2.jpg", "b/10.JPG", "b/notes.txt", "a/1.png", "0.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfone.jpg\r\n\n/two two.jpg\ns3://bucket/three\xff.jpg\n")
    photos = tmp_path / "photos"
    _, found, _ = planned(photos, tmp_path / "list.txt", photos / "b" / "*.jpg")
    names = [name for _, name, _ in found]
    below = [f"{photos}/{name}" for name in ("0.webp", "a/1.png", "b/10.JPG", "b/2.jpg")]
    assert names == [*below, "one.jpg", "/two two.jpg", "s3://bucket/three\udcff.jpg", f"{photos}/b/2.jpg"]
    assert [number for number, _, _ in found] == list(range(8))
    assert {image for _, _, image in found} == {None}


def test_a_folder_by_url_has_the_pictures_that_it_has_by_path(planned, pictures):
    _, by_path, local = planned(pictures)
    _, by_url, reader = planned(pictures.as_uri())
    assert len(by_url) == 60
    for (_, path, _), (_, url, _) in zip(by_path, by_url, strict=True):
        assert url == f"file://{path}"
    assert reader.fetch(by_url[3][1]) == open(local.fetch(by_path[3][1]), "rb").read()  # noqa: PTH123, SIM115


def test_names_are_fetched_from_the_root(tmp_path, planned):
    (tmp_path / "a b#%1.jpg").write_bytes(b"data")
    (tmp_path / "list.txt").write_text("a b#%1.jpg\n")
    _, _, reader = planned(tmp_path / "list.txt", root=str(tmp_path))
    assert reader.fetch("a b#%1.jpg") == str(tmp_path / "a b#%1.jpg")
    assert reader.fetch("/else/where.jpg") == "/else/where.jpg"
    _, _, reader = planned(tmp_path / "list.txt", root=tmp_path.as_uri())
    assert reader.fetch("a b#%1.jpg") == b"data"
    for name, error in (("missing.jpg", OSError), ("http://host/a.jpg", InputError)):
        with pytest.raises(error):
            reader.fetch(name)


def test_columns_of_paths_bytes_and_both(planned, tmp_path):
    both = [{"bytes": b"x", "path": "x.jpg"}, {"bytes": None, "path": "y.jpg"}, {"bytes": b"z", "path": None}, None]
    one = write(tmp_path / "one.parquet", id=[1, 2], url=["s3://a/b.jpg", None])
    two = write(tmp_path / "two.parquet", image=both, path=["no"] * 4)
    _, found, _ = planned(one, two)
    names = ["s3://a/b.jpg", f"{one}#1", "x.jpg", "y.jpg", f"{two}#2", f"{two}#3"]
    assert [name for _, name, _ in found] == names
    images = [image for _, _, image in found]
    assert images[0] is None and images[2:5] == [b"x", None, b"z"]
    assert "holds nothing" in str(images[1]) and isinstance(images[5], InputError)
    _, found, _ = planned(two, column="path")
    assert [name for _, name, _ in found] == ["no"] * 4
    _, found, _ = planned(write(tmp_path / "three.parquet", bytes=[b"1", b"2"]))
    assert [image for _, _, image in found] == [b"1", b"2"]


def test_parts_grow_and_read_their_own_rows_whatever_the_row_groups(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "AS_LARGE", 2)
    monkeypatch.setattr(inputs, "LARGEST", 16)
    names = [f"{number}.jpg" for number in range(100)]
    (tmp_path / "list.txt").write_text("\n".join(names[:30]))
    file = write(tmp_path / "rows.parquet", groups=7, path=names[30:])
    parts, found, reader = planned(tmp_path / "list.txt", file)
    assert [part.count for part in parts] == [4, 4, 8, 8, 6, 16, 16, 16, 16, 6]  # the list ends after 30
    assert [name for _, name, _ in found] == names
    assert [number for number, _, _ in found] == list(range(100))
    assert [name for _, name, _ in reader.read(parts[7])] == names[62:78]
    assert (SMALLEST, LARGEST, AS_LARGE) == (4, 2048, 64)


def test_a_parquet_file_that_has_changed_is_not_read_as_if_it_had_not(planned, tmp_path):
    file = write(tmp_path / "rows.parquet", path=["a.jpg"])
    parts, _, reader = planned(file)
    write(file, path=["b.jpg", "c.jpg"])
    os.utime(file, ns=(1, 1))
    with pytest.raises(InputError, match=r"rows.parquet has changed since the job began"):
        list(reader.read(parts[0]))


@pytest.mark.parametrize(
    ("source", "column", "told"),
    [
        ("missing", None, "there is no missing; accepted are folders, pictures, LIST.txt and .parquet files"),
        ("*.nothing", None, r"no file matches \*.nothing"),
        ("numbers.parquet", None, r"no column of pictures \(image, .*\); it has x: --column says which"),
        ("numbers.parquet", "y", "has no column 'y'; it has x"),
        ("text.parquet", None, "cannot be read as a parquet file"),
        ("gopher://a/b/", None, "gopher://a/ cannot be opened .* file systems are file, s3"),
    ],
)
def test_what_is_no_source_says_what_is(planned, tmp_path, monkeypatch, source, column, told):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "numbers.parquet", x=[1])
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InputError, match=told):
        planned(source, column=column)
    assert not (tmp_path / "listing.jsonl").exists()
