"""Facts about readers: what a file leaves open is settled, what is broken is named."""

from __future__ import annotations

import gzip
import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.data.readers import read_table, write_table

TABLE = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3], "c": ["u", "v", "w"]})

floats = st.floats(allow_nan=False)
words = st.text("abcdefghij klmnop'\"é漢", min_size=1, max_size=8).map(lambda t: f"w{t}w")


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 6))
    columns = draw(st.lists(words, min_size=1, max_size=5, unique_by=lambda n: " ".join(n.split())))
    kinds = st.sampled_from([floats, st.integers(-(2**53), 2**53), words])
    return pd.DataFrame(
        {
            " ".join(name.split()): draw(st.lists(draw(kinds), min_size=rows, max_size=rows))
            for name in columns
        }
    )


def save(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        read_table(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(df=tables())
def test_what_is_written_is_read_back_bit_for_bit(tmp_path, suffix, df):
    write_table(df, tmp_path / f"t{suffix}")
    pd.testing.assert_frame_equal(read_table(tmp_path / f"t{suffix}"), df, check_exact=True,
                                  check_dtype=False)  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ", ", "  "])
def test_the_delimiter_is_found(tmp_path, delimiter):
    lines = ["a b c", "1.5 1 u", "2.5 2 v", "3.5 3 w"]
    path = save(tmp_path, "t.txt", "\n".join(line.replace(" ", delimiter) for line in lines))
    pd.testing.assert_frame_equal(read_table(path), TABLE)


@pytest.mark.parametrize("delimiter", [";", "\t", "|", " "])
@pytest.mark.parametrize("header", [True, False])
def test_a_decimal_comma_is_found(tmp_path, delimiter, header):
    lines = ["a b"] * header + ["1,5 -2,25e1", "0,5 3"]
    path = save(tmp_path, "t.csv", "\n".join(line.replace(" ", delimiter) for line in lines))
    assert read_table(path, header=header).to_numpy().tolist() == [[1.5, -22.5], [0.5, 3.0]]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-8", "größe"), ("utf-8-sig", "größe"), ("latin-1", "größe"), ("utf-16", "größe")],
)
def test_the_encoding_is_found(tmp_path, encoding, name):
    path = save(tmp_path, "t.csv", f"{name},y\n1,2\n".encode(encoding))
    assert list(read_table(path).columns) == [name, "y"]


def test_a_letter_of_another_encoding_far_into_the_file_is_read(tmp_path):
    path = save(tmp_path, "t.csv", b"x,y\n" + b"1,a\n" * 40000 + b"1,\xe9\n")
    assert read_table(path)["y"].iloc[-1] == "é"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_and_blank_lines_are_accepted(tmp_path, end):
    path = save(tmp_path, "t.csv", end.join(["", "x,y", "1,2", "", "3,4", "", ""]))
    assert read_table(path).to_numpy().tolist() == [[1, 2], [3, 4]]


def test_a_compressed_file_is_read(tmp_path):
    path = save(tmp_path, "t.csv.gz", gzip.compress(TABLE.to_csv(index=False).encode()))
    pd.testing.assert_frame_equal(read_table(path), TABLE)


def test_names_may_hold_the_delimiter_and_line_breaks_in_quotes(tmp_path):
    path = save(tmp_path, "t.csv", '"Ca,diast","T\n(K)"\n1,2\n3,\n')
    assert read_table(path).columns.tolist() == ["Ca,diast", "T (K)"]


def test_a_remark_before_rows_of_numbers_is_their_header(tmp_path):
    path = tmp_path / "t.txt"
    np.savetxt(path, np.eye(3), header="a run of today\nx y z", fmt="%g")
    assert read_table(path).columns.tolist() == ["x", "y", "z"]


def test_without_a_header_columns_are_numbered_from_one(tmp_path):
    path = save(tmp_path, "t.dat", " 1 2.5\n 3 4.5\n")
    assert read_table(path, header=False).to_dict("list") == {"column1": [1, 3],
                                                              "column2": [2.5, 4.5]}  # fmt: skip


def test_the_running_numbers_of_unnamed_columns_are_a_header(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame(np.eye(4)).to_csv(path, index=False)
    assert read_table(path).columns.tolist() == ["0", "1", "2", "3"]


def test_an_empty_cell_is_missing_and_infinity_a_number(tmp_path):
    df = read_table(save(tmp_path, "t.csv", "x,y\n1,\n,inf\nNaN,3\n"))
    np.testing.assert_array_equal(df, [[1, np.nan], [np.nan, np.inf], [np.nan, 3]])


def test_a_delimiter_at_the_end_of_every_line_makes_no_column(tmp_path):
    assert read_table(save(tmp_path, "t.csv", "x,y,\n1,2,\n")).columns.tolist() == ["x", "y"]


def test_arrays_of_an_npz_file_become_columns(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(
        path, x=np.arange(6.0).reshape(3, 2), y=np.ones((3, 1)), label=np.array(["a", "b", "c"])
    )
    df = read_table(path)
    assert df.columns.tolist() == ["x0", "x1", "y", "label"]
    assert df["x1"].tolist() == [1, 3, 5]


def test_the_named_index_of_a_parquet_file_is_a_column(tmp_path):
    TABLE.set_index("c").to_parquet(tmp_path / "t.parquet")
    assert set(read_table(tmp_path / "t.parquet").columns) == {"a", "b", "c"}


class Evil:
    def __reduce__(self):
        raise AssertionError("unpickled")


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def parquet(df):
    buffer = io.BytesIO()
    df.to_parquet(buffer)
    return buffer.getvalue()


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def claims_to_be_huge():
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**13,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


RANDOM = np.random.default_rng(0).bytes(4000)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("t.csv", "\n\n", "holds no rows"),
        ("t.csv", "x,y\n", "holds no rows"),
        ("t.csv", RANDOM, "binary data"),
        ("t.csv", parquet(TABLE), "binary data"),
        ("t.csv", "x,y\n1,2\n3\n5,6\n", "row 2 has 1 cells, expected 2"),
        ("t.csv", "x,y,z\n1,2,3\n3,4\n", "row 2 has 2 cells, expected 3"),
        ("t.csv", "x,y\n1,2\n\n3,4,5\n", "row 2 has 3 cells, expected 2"),
        ("t.csv", "x,y\n1,2,3\n4,5,6\n", "row 1 has 3 cells, expected 2"),
        ("t.txt", "x y z\n1 2 3\n3 4\n", "row 2 has 2 cells, expected 3"),
        ("t.csv", 'x,y\n1,"2\n3,4\n', "cannot be read as a table"),
        ("t.csv", "x,y,x\n1,2,3\n", "column 'x' is there twice"),
        ("t.csv", "1.0,2.0\n3.0,4.0\n", "first row holds only numbers"),
        ("t.txt", "1.0 2.0\n3.0 4.0\n", "first row holds only numbers"),
        ("t.csv.gz", gzip.compress(RANDOM, mtime=0)[:-900], "truncated or damaged"),
        ("t.csv.gz", b"x,y\n1,2\n", "truncated or damaged"),
        ("t.parquet", parquet(TABLE)[:-20], "cannot be read as Parquet"),
        ("t.parquet", RANDOM, "cannot be read as Parquet"),
        ("t.parquet", parquet(pd.DataFrame({"x": [[1, 2]]})), "'x' holds list"),
        ("t.parquet", parquet(TABLE.iloc[:0]), "holds no rows"),
        ("t.npz", npz(x=np.arange(9))[:-30], "cannot be read as NPZ"),
        ("t.npz", RANDOM, "cannot be read as NPZ"),
        ("t.npz", npz(x=np.array([{}, 1], dtype=object)), "array 'x' holds object"),
        ("t.npz", npz(x=np.zeros(3), y=np.zeros(4)), "'x' has 3 rows, but 'y' has 4"),
        ("t.npz", npz(x=np.zeros((3, 2)), x0=np.zeros(3)), "'x0' is there twice"),
        ("t.npz", npz(x=np.zeros((3, 2, 2))), r"'x' has shape \(3, 2, 2\)"),
        ("t.npz", npz(x=np.float64(3)), r"'x' has shape \(\)"),
        ("t.npz", npz(x=np.zeros(3, complex)), "array 'x' holds complex128"),
        ("t.npz", npz(), "holds no arrays"),
        ("t.npz", zipped("x.txt", "1,2"), "'x.txt', which is not an array"),
        ("t.npz", zipped("x.npy", claims_to_be_huge()), "shorter than its shape"),
        ("t.npz", zipped("x.npy", b"no array"), "cannot be read as NPZ"),
        ("t.xlsx", b"PK", "export the sheet as CSV"),
        ("t.pkl", b"PK", r"cannot read \.pkl; can read \.csv"),
        ("t", b"PK", "a file without suffix"),
        ("t.gz", b"PK", r"cannot read \.gz"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content, sentence):
    import re

    path = save(tmp_path, name, content)
    message = refusal(path)
    assert message.startswith(str(path)) and re.search(sentence, message)


def test_a_pickle_inside_an_npz_file_is_never_opened(tmp_path):
    path = tmp_path / "t.npz"
    with pytest.raises(AssertionError, match="unpickled"):
        np.savez(path, x=np.array([Evil()], dtype=object))  # the trap works
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    content = header.getvalue() + b"cos\nabort\n(tR."
    assert "holds object" in refusal(save(tmp_path, "u.npz", zipped("x.npy", content)))


def test_every_truncation_of_a_binary_file_is_refused_in_one_sentence(tmp_path):
    for name, content in [("t.parquet", parquet(TABLE)), ("t.npz", npz(x=np.arange(5)))]:
        for size in range(1, len(content), 37):
            assert "\n\n" not in refusal(save(tmp_path, name, content[:size]))


def test_a_missing_file_is_named_with_the_nearest_one(tmp_path):
    save(tmp_path, "runs.csv", "x\n1")
    assert refusal(tmp_path / "run.csv").endswith("did you mean 'runs.csv'?")


def test_a_folder_is_not_a_file(tmp_path):
    assert "is a folder" in refusal(tmp_path)
    assert "there is no folder" in refusal(tmp_path / "none" / "t.csv")


def test_a_table_that_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def full(self, path, **options):
        path.write_text("half of")
        raise OSError(28, "No space left on device")

    write_table(TABLE, tmp_path / "t.csv")
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(UserError, match="No space left"):
        write_table(TABLE.iloc[:1], tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), TABLE)
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("t.npz", "can write .csv"), ("t", "no suffix"), ("none/t.csv", "there is no folder")],
)
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, name, sentence):
    with pytest.raises(UserError, match=sentence):
        write_table(TABLE, tmp_path / name)
