"""What a model file keeps of how its data were read, from whoever wrote it."""

import pytest

from flowdetect import load
from flowdetect._files import replacing
from flowdetect._persistence import notes_of, save


def test_notes_stand_beside_the_model(here, tmp_path):
    model = load("model.fd")
    assert notes_of("model.fd")["reading"]["drop"] == []
    save(model, tmp_path / "a.fd", {"reading": {"size": [8, 8]}})
    assert notes_of(tmp_path / "a.fd") == {"reading": {"size": [8, 8]}}
    assert load(tmp_path / "a.fd").offset_ == model.offset_
    model.save(tmp_path / "a.fd")
    assert notes_of(tmp_path / "a.fd") == {}


@pytest.mark.parametrize(
    "reading",
    [
        {"columns": "height"},
        {"drop": [1]},
        {"drop": None},
        {"size": [8]},
        {"size": ["8", "8"]},
        {"size": [True, 8]},
        {"mode": "CMYK"},
        {"mode": ["L"]},
        {"fit": None},
        {"separator": 5},
        {"label": ["kind"]},
    ],
)
def test_notes_that_cannot_be_are_refused(reading, here, call, tmp_path):
    save(load("model.fd"), tmp_path / "a.fd", {"reading": reading})
    done = call("score", tmp_path / "a.fd", "new.csv", "-o", tmp_path / "out.csv")
    assert done.code == 2
    assert "has invalid settings for reading its data" in done.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("notes", [{"reading": None}, {"reading": {"of": "later"}}, {"more": 1}, {}])
def test_notes_that_say_nothing_are_passed_over(notes, here, call, tmp_path):
    save(load("model.fd"), tmp_path / "a.fd", notes)
    assert call("score", tmp_path / "a.fd", "new.csv", "-o", "-").code == 0


def test_a_file_in_pieces_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as file:
        file.write(b"one ")
        assert not path.exists()
        file.write(b"two")
    assert path.read_text() == "one two"
    with pytest.raises(OSError, match="of another file"):
        write_and_fail(path)
    assert path.read_text() == "one two"
    assert list(tmp_path.iterdir()) == [path]


def write_and_fail(path):
    with replacing(path) as file:
        file.write(b"three")
        raise OSError("of another file")
