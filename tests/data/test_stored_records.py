"""Records in a file without a name."""

import copy
import functools
import multiprocessing
import os
import pickle
import tempfile

import pytest

from detrex.data.stored_records import HIGH, UNKNOWN, WIDE, aspects_of, store
from detrex.errors import DataError

RECORDS = [
    {"image_id": 3, "file_name": "a" * 300, "width": 7, "height": 5, "annotations": [{"x": [0.5]}]},
    {"image_id": "é", "width": 5, "height": 7},
    {"image_id": None, "width": 5},
    {"width": 6, "height": 6},
    {"width": None, "height": 6},
]


def test_store__gives_each_record_back():
    records = store(record for record in RECORDS)
    assert len(records) == len(RECORDS)
    assert list(records) == RECORDS
    assert records[-1] == RECORDS[-1]
    assert records.aspects.tolist() == [WIDE, HIGH, UNKNOWN, HIGH, UNKNOWN]
    for outside in (5, -6):
        with pytest.raises(IndexError, match=f"{outside} is none of 5 records"):
            records[outside]


def test_store__what_is_done_to_a_record_stays_outside():
    records = store(RECORDS)
    records[0]["annotations"].append(1)
    assert records[0] == RECORDS[0]
    assert copy.deepcopy(records) is records


def test_store__nothing():
    assert list(store([])) == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_store__another_process_reads_the_same_file(method):
    """By its open file where that is inherited or handed over; by /proc from anywhere else."""
    records = store(RECORDS)
    context = multiprocessing.get_context(method)
    told = context.SimpleQueue()
    process = context.Process(target=_tell, args=(records, pickle.dumps(records), told))
    process.start()
    assert told.get() == [RECORDS, RECORDS]
    process.join()
    assert process.exitcode == 0


def _tell(records, pickled, told):
    told.put([list(records), list(pickle.loads(pickled))])


def test_store__leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    records = store(RECORDS)
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(records.file.fileno()).st_nlink == 0


def test_store__a_full_disk_is_one_sentence(monkeypatch):
    full = functools.partial(open, "/dev/full", "w+b", buffering=0)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DataError, match=r"cannot be written into .*No space left.*TMPDIR"):
        store(RECORDS)


def test_aspects_of__a_data_set_without_them_is_read():
    assert aspects_of(RECORDS).tolist() == [WIDE, HIGH, UNKNOWN, HIGH, UNKNOWN]
