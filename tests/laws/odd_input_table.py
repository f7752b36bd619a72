"""Odd inputs: what users bring as X that is to be refused, or to work, and what the message has to say.

A new oddity is one line here; `tests/test_odd_inputs.py` gives it to every public class and function.
"""

from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from odd_frames import ODD_FRAMES, PLAIN_FRAMES
from odd_kinds import Refused, Taken, words
from PIL import Image

N_ROWS, WIDTH = 40, 16  # a row is 16 columns or an image of 4x4
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(N_ROWS, WIDTH)).astype(np.float32).astype(np.float64)
WHOLE = RNG.integers(0, 256, size=(N_ROWS, WIDTH))
FRAME = pd.DataFrame(TABLE[:, :3], columns=["a", "b", "c"])


class Rows:
    """A map-style dataset of rows."""

    def __init__(self, rows, fails_at=-1):
        self.items, self.fails_at = rows, fails_at

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        if i == self.fails_at:
            raise OSError("cannot identify image file")
        return self.items[i]


class Stored:
    """An array as h5py's and zarr's: read by slices and increasing indices, no numpy array, here without __array__."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        if isinstance(index, np.ndarray):
            assert (np.diff(index) > 0).all()
        return self.array[index]


class Converted:
    """An array of another library, which numpy can convert."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)


def with_cell(value, dtype=object):
    X = TABLE.astype(dtype)
    X[3, 1] = value
    return X


def frame_with(**columns):
    return FRAME.assign(**{name: values() for name, values in columns.items()})


DAYS = np.datetime64("2024-01-01") + np.arange(N_ROWS)
NAMES = np.array(["red", "green"])[np.arange(N_ROWS) % 2]
MASK = np.zeros(TABLE.shape, dtype=bool)
MASK[2, 5] = True

FRAMES = {
    "a column of categories": Refused(
        lambda: frame_with(d=lambda: pd.Categorical(NAMES)),
        words("'d' (category)", "OrdinalEncoder", "TableVectorizer"),
    ),
    "a column of ordered categories of numbers": Refused(
        lambda: frame_with(d=lambda: pd.Categorical(np.arange(N_ROWS) % 3, ordered=True)),
        words("'d' (category)", "OrdinalEncoder"),
    ),
    "a column of text": Refused(lambda: frame_with(d=lambda: NAMES), words("'d'", "OneHotEncoder", "pipeline")),
    "a column of text as objects": Refused(
        lambda: frame_with(d=lambda: NAMES.astype(object)), words("'d'", "OrdinalEncoder")
    ),
    "a column of numbers in writing": Refused(
        lambda: frame_with(d=lambda: np.array(["1.5"] * N_ROWS, object)), words("'d'", "encode")
    ),
    "two columns of text": Refused(
        lambda: frame_with(d=lambda: NAMES, e=lambda: pd.Categorical(NAMES)), words("'d'", "'e'", "TableVectorizer")
    ),
    "eight columns of text": Refused(
        lambda: frame_with(**{f"n{i}": lambda: NAMES for i in range(8)}), words("'n0'", "and 3 more", "TableVectorizer")
    ),
    "a column of dates": Refused(lambda: frame_with(d=lambda: DAYS), words("'d' (datetime64", "np.timedelta64")),
    "a column of dates with a time zone": Refused(
        lambda: frame_with(d=lambda: pd.DatetimeIndex(DAYS, tz="UTC")), words("'d' (datetime64", "numbers of a unit")
    ),
    "a column of durations": Refused(
        lambda: frame_with(d=lambda: DAYS - DAYS[0]), words("'d' (timedelta64", "numbers of a unit")
    ),
    "a column of periods": Refused(
        lambda: frame_with(d=lambda: pd.PeriodIndex(DAYS, freq="D")), words("'d' (period", "numbers of a unit")
    ),
    "a column of date objects": Refused(
        lambda: frame_with(d=lambda: np.array([date(2024, 1, 1)] * N_ROWS)), words("'d' (object)", "numbers of a unit")
    ),
    "a column of intervals": Refused(
        lambda: frame_with(d=lambda: pd.interval_range(0, N_ROWS)), words("'d' (interval")
    ),
    "a column of complex numbers": Refused(
        lambda: frame_with(d=lambda: np.full(N_ROWS, 1j)), words("'d' (complex128)", "real and imaginary")
    ),
    "a column of lists": Refused(
        lambda: frame_with(d=lambda: pd.Series([[1, 2]] * N_ROWS)), words("'d' (object)", "encode")
    ),
    "a nullable column with a missing cell": Refused(
        lambda: frame_with(d=lambda: pd.array([1, None] * (N_ROWS // 2), dtype="Int64")), words("'d' (Int64)", "impute")
    ),
    "a nullable boolean column with a missing cell": Refused(
        lambda: frame_with(d=lambda: pd.array([True, None] * (N_ROWS // 2), dtype="boolean")),
        words("'d' (boolean)", "impute"),
    ),
    "a series": Refused(lambda: FRAME["a"], words("one column", "X.to_frame()")),
    "a row of a frame": Refused(lambda: FRAME.iloc[0], words("one row", "X.to_frame().T")),
}

ARRAYS = {
    "dates": Refused(
        lambda: np.tile(DAYS[:, None], WIDTH), words("dates or durations", "datetime64", "numbers of a unit")
    ),
    "durations": Refused(lambda: np.tile((DAYS - DAYS[0])[:, None], WIDTH), words("timedelta64", "numbers of a unit")),
    "text": Refused(
        lambda: np.tile(NAMES[:, None], WIDTH), words("strings", "<U5", "numeric values", "OrdinalEncoder")
    ),
    "numbers in writing": Refused(lambda: TABLE.astype(str), words("strings", "X.astype(float)")),
    "bytes": Refused(lambda: np.full(TABLE.shape, b"x"), words("strings", "S1", "encode")),
    "text of variable width": Refused(
        lambda: np.tile(NAMES[:, None], WIDTH).astype(np.dtypes.StringDType()), words("strings", "encode")
    ),
    "complex numbers": Refused(lambda: TABLE + 0j, words("Complex data not supported", "complex128", "X.real")),
    "a structured array": Refused(
        lambda: np.zeros(N_ROWS, dtype=[("a", float), ("b", int)]), words("structured", "structured_to_unstructured")
    ),
    "a record array": Refused(
        lambda: np.rec.fromarrays(TABLE.T[:2], names="a,b"), words("structured", "structured_to_unstructured")
    ),
    "raw memory": Refused(lambda: np.zeros((N_ROWS, 4), dtype="V4"), words("structured", "V4")),
    "a cell of text": Refused(lambda: with_cell("n/a"), words("'n/a'", "row 3, column 1", "encode")),
    "a cell of bytes": Refused(lambda: with_cell(b"1"), words("b'1'", "row 3, column 1", "encode")),
    "a cell that is a mapping": Refused(lambda: with_cell({"a": 1}), words("dict", "row 3, column 1")),
    "a cell that is a date": Refused(
        lambda: with_cell(datetime(2024, 1, 1)), words("row 3, column 1", "numbers of a unit")
    ),
    "a cell that is missing": Refused(lambda: with_cell(pd.NA), words("NAType", "row 3, column 1", "impute")),
    "a cell that is no time": Refused(lambda: with_cell(pd.NaT), words("row 3, column 1", "impute")),
    "a cell that is complex": Refused(lambda: with_cell(1j), words("complex", "row 3, column 1")),
    "a cell that is an array": Refused(lambda: with_cell_array(), words("row 3, column 1", "number")),
    "a whole number beyond float64": Refused(lambda: with_cell(10**400), words("float64", "401 digits", "logarithms")),
    "a masked array": Refused(
        lambda: np.ma.masked_array(TABLE, MASK), words("1 masked cell", "(2, 5)", "X.filled", "never used")
    ),
    "a masked array of whole numbers": Refused(
        lambda: np.ma.masked_array(WHOLE, MASK), words("1 masked cell", "(2, 5)", "impute")
    ),
    "a matrix": Refused(lambda: np.matrix(TABLE), words("np.matrix", "np.asarray(X)")),
    "a sparse matrix": Refused(lambda: scipy.sparse.csr_matrix(TABLE), words("sparse", "csr_matrix", "X.toarray()")),
    "a sparse array": Refused(lambda: scipy.sparse.coo_array(TABLE), words("sparse", "coo_array", "X.toarray()")),
    "no axis": Refused(lambda: np.array(3.0), words("2D array")),
    "one axis": Refused(lambda: TABLE[:, 0], words("2D array", "1D array", "reshape(-1, 1)")),
    "one axis of objects": Refused(lambda: np.array([TABLE[0], "a"], object), words("row", "number")),
    "five axes": Refused(
        lambda: np.zeros((N_ROWS, 2, 2, 2, 2)), words("dim 5", "(40, 2, 2, 2, 2)", "reshape(len(X), -1)")
    ),
    "channel first": Refused(
        lambda: np.zeros((N_ROWS, 3, 8, 8)), words("channel-first", "transpose(0, 2, 3, 1)", "image_shape=(3, 8, 8)")
    ),
}


def with_cell_array():
    X = TABLE.astype(object)
    X[3, 1] = np.zeros(2)
    return X


LISTS = {
    "rows of two lengths": Refused(lambda: [[1.0, 2.0], [3.0]] * 20, words("the same length", "1 values and 2 values")),
    "a row that is a number": Refused(lambda: [[1.0, 2.0], 3.0] * 20, words("the same length", "no length")),
    "a list of mappings": Refused(lambda: [{"a": 1.0}] * 20, words("dict", "pandas.DataFrame(X)")),
    "a list of text": Refused(lambda: ["a", "b"] * 20, words("strings", "encode")),
    "rows of text": Refused(lambda: [["a", 1.0]] * 20, words("strings", "encode")),
    "rows of dates": Refused(lambda: [[date(2024, 1, 1)]] * 20, words("date", "numbers of a unit")),
    "a list of numbers": Refused(lambda: [1.0] * 20, words("2D array", "1D array", "reshape")),
    "a list of images": Refused(lambda: list(WHOLE.reshape(-1, 4, 4)), words("one array", "40 arrays", "np.stack(X)")),
    "a tuple of images": Refused(lambda: tuple(WHOLE.reshape(-1, 4, 4)), words("one array", "np.stack(X)")),
    "a list of tensors": Refused(lambda: list(torch.zeros(9, 1, 4, 4)), words("one array", "torch.stack(X)")),
    "images of two sizes": Refused(
        lambda: [np.zeros((4, 4)), np.zeros((5, 4))] * 9,
        words("the same size", "(4, 4), (5, 4)", "resize", "np.stack(X)"),
    ),
    "images of many sizes": Refused(
        lambda: [np.zeros((4, k)) for k in range(1, 20)], words("the same size", "(4, 5) ...", "resize")
    ),
    "images gray and in colour": Refused(
        lambda: [np.zeros((4, 4)), np.zeros((4, 4, 3))] * 9, words("the same size", "(4, 4), (4, 4, 3)")
    ),
    "a list of pictures": Refused(lambda: [Image.new("L", (4, 4))] * 20, words("one array", "np.stack(X)")),
    "pictures of two sizes": Refused(
        lambda: [Image.new("L", (4, 4)), Image.new("L", (4, 6))] * 9, words("the same size", "(4, 4), (6, 4)", "resize")
    ),
    "vectors of two lengths": Refused(lambda: [np.zeros(3), np.zeros(2)] * 9, words("the same size", "(3,), (2,)")),
}

TENSORS = {
    "a tensor without values": Refused(
        lambda: torch.zeros(N_ROWS, WIDTH, device="meta"), words("meta", "values", "(40, 16)")
    ),
    "a sparse tensor": Refused(lambda: torch.from_numpy(TABLE).to_sparse(), words("sparse", "X.to_dense()")),
    "a sparse tensor by rows": Refused(
        lambda: torch.from_numpy(TABLE).to_sparse_csr(), words("sparse_csr", "X.to_dense()")
    ),
    "a quantised tensor": Refused(
        lambda: torch.quantize_per_tensor(torch.from_numpy(TABLE).float(), 0.1, 0, torch.qint8),
        words("quantised", "qint8", "X.dequantize()"),
    ),
    "a complex tensor": Refused(
        lambda: torch.from_numpy(TABLE + 0j), words("Complex data not supported", "complex128")
    ),
    "a nested tensor": Refused(
        lambda: torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)], layout=torch.jagged),
        words("nested", "one size"),
    ),
    "a tensor of images without channels": Refused(
        lambda: torch.zeros(N_ROWS, 4, 4), words("(n, channels, height, width)", "(40, 4, 4)", "X[:, None]")
    ),
    "a tensor with gray channels last": Refused(
        lambda: torch.zeros(N_ROWS, 8, 8, 1, dtype=torch.uint8),
        words("channel-last", "(40, 8, 8, 1)", "permute(0, 3, 1, 2)"),
    ),
    "a tensor with colours last": Refused(
        lambda: torch.zeros(N_ROWS, 8, 8, 3), words("channel-last", "permute(0, 3, 1, 2)", "image_shape=(8, 3, 8)")
    ),
    "a tensor of one axis": Refused(lambda: torch.zeros(N_ROWS), words("2D array", "1D array", "reshape")),
    "a tensor of five axes": Refused(lambda: torch.zeros(N_ROWS, 1, 2, 2, 2), words("dim 5", "(40, 1, 2, 2, 2)")),
}

EMPTY = {  # reports say it in words of their own
    "no rows": Refused(lambda: TABLE[:0], words("0 sample(s)", "minimum")),
    "no columns": Refused(lambda: TABLE[:, :0], words("0 feature(s)", "minimum")),
    "an empty list": Refused(lambda: [], words("2D array", "1D array")),
}

OTHERS = {
    "nothing": Refused(lambda: None, words("None", "pass an array")),
    "a number": Refused(lambda: 3.0, words("3.0", "float", "pass an array")),
    "text": Refused(lambda: "images.npy", words("'images.npy'", "np.load")),
    "bytes": Refused(lambda: b"images", words("b'images'", "np.load")),
    "a mapping": Refused(lambda: {"a": [1.0, 2.0]}, words("dict", "pandas.DataFrame(X)")),
    "a set": Refused(lambda: {1.0, 2.0}, words("set", "np.stack(list(X))")),
    "a generator": Refused(lambda: (row for row in TABLE), words("generator", "np.stack(list(X))")),
    "an iterator": Refused(lambda: iter(TABLE.tolist()), words("list_iterator", "np.stack(list(X))")),
    "a loader": Refused(
        lambda: torch.utils.data.DataLoader(Stream(), batch_size=4), words("DataLoader", "map-style", "np.stack")
    ),
    "an iterable dataset": Refused(lambda: Stream(), words("Stream", "map-style", "__getitem__")),
    "one picture": Refused(lambda: Image.new("L", (4, 4)), words("one picture", "np.asarray(X)[None]")),
    "a class": Refused(lambda: np.ndarray, words("class ndarray", "pass an array")),
    "a function": Refused(lambda: len, words("builtin_function", "pass an array")),
}


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(TABLE)


DATASETS = {  # densities, detectors and reports read datasets; all else refuses them with this remedy
    "a dataset": Refused(lambda: Rows(TABLE), words("dataset", "np.stack")),
    "a dataset of tensors": Refused(
        lambda: torch.utils.data.TensorDataset(torch.from_numpy(TABLE)), words("TensorDataset", "np.stack")
    ),
    "a loader of a dataset": Refused(
        lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(TABLE)), batch_size=4),
        words("DataLoader", "np.stack"),
    ),
}
BAD_DATASETS = {
    "an empty dataset": Refused(lambda: Rows([]), words("0 sample", "length 0", "folder")),
    "items of two lengths": Refused(
        lambda: Rows([*TABLE[:9], TABLE[9, :3]]), words("the same shape", "(3,) in item 9", "(16,)", "resize")
    ),
    "items that are mappings": Refused(lambda: Rows([{"name": "a.png"}] * 9), words("dict", "item 0", "wraps")),
    "items that are text": Refused(lambda: Rows(["a.png", "b.png"] * 9), words("'a.png'", "item 0", "wraps")),
    "an item that cannot be read": Refused(
        lambda: Rows(TABLE, fails_at=7), words("item 7", "OSError", "cannot identify image file", "Subset")
    ),
}

REFUSED = {
    **FRAMES,
    **ODD_FRAMES,
    **ARRAYS,
    **LISTS,
    **TENSORS,
    **{f"{name} itself": odd for name, odd in OTHERS.items()},
}

DIGITS = WHOLE // 86  # 0, 1 and 2
FLOAT16 = TABLE.astype(np.float16)
TAKEN = {
    "float32": Taken(lambda: TABLE.astype(np.float32), TABLE, 1e-3),
    "float16": Taken(lambda: FLOAT16, FLOAT16.astype(np.float64), 1e-3),
    "long doubles": Taken(lambda: TABLE.astype(np.longdouble), TABLE),
    "the other byte order": Taken(lambda: TABLE.astype(TABLE.dtype.newbyteorder()), TABLE),
    "Fortran's order": Taken(lambda: np.asfortranarray(TABLE), TABLE),
    "every second column of another": Taken(lambda: np.repeat(TABLE, 2, axis=1)[:, ::2], TABLE),
    "objects that are numbers": Taken(lambda: TABLE.astype(object), TABLE),
    "decimals": Taken(lambda: np.vectorize(lambda x: Decimal(float(x)), otypes=[object])(TABLE), TABLE),
    "fractions": Taken(lambda: np.vectorize(lambda x: Fraction(float(x)), otypes=[object])(TABLE), TABLE),
    "a masked array with nothing masked": Taken(lambda: np.ma.masked_array(TABLE, np.zeros_like(MASK)), TABLE),
    "a masked array without mask": Taken(lambda: np.ma.masked_array(TABLE), TABLE),
    "lists": Taken(lambda: TABLE.tolist(), TABLE),
    "tuples": Taken(lambda: tuple(map(tuple, TABLE.tolist())), TABLE),
    "a list of vectors": Taken(lambda: list(TABLE), TABLE),
    "a list of one-axis tensors": Taken(lambda: list(torch.from_numpy(TABLE)), TABLE),
    "a tensor": Taken(lambda: torch.from_numpy(TABLE), TABLE),
    "a tensor that requires a gradient": Taken(lambda: torch.from_numpy(TABLE).requires_grad_(), TABLE),
    "a tensor in bfloat16": Taken(
        lambda: torch.from_numpy(TABLE).bfloat16(), torch.from_numpy(TABLE).bfloat16().double().numpy(), 1e-3
    ),
    "a tensor in half precision": Taken(
        lambda: torch.from_numpy(TABLE).half(), torch.from_numpy(TABLE).half().double().numpy(), 1e-3
    ),
    "a parameter": Taken(lambda: torch.nn.Parameter(torch.from_numpy(TABLE)), TABLE),
    "an array in a file": Taken(lambda: Stored(TABLE), TABLE),
    "an array of another library": Taken(lambda: Converted(TABLE), TABLE),
    "a read-only array": Taken(lambda: np.frombuffer(TABLE.tobytes()).reshape(TABLE.shape), TABLE),
    "whole numbers": Taken(lambda: DIGITS.astype(np.uint64), DIGITS.astype(np.float64)),
    "whole numbers of a byte": Taken(lambda: DIGITS.astype(np.int8), DIGITS.astype(np.float64)),
    "booleans": Taken(lambda: WHOLE > 127, (WHOLE > 127).astype(np.float64)),
    "a tensor of booleans": Taken(lambda: torch.from_numpy(WHOLE > 127), (WHOLE > 127).astype(np.float64)),
    "a frame of nullable columns": Taken(lambda: pd.DataFrame(TABLE).rename(columns=str).astype("Float64"), TABLE),
    "a frame of sparse columns": Taken(
        lambda: pd.DataFrame(TABLE).rename(columns=str).astype(pd.SparseDtype("float64", 0.0)), TABLE
    ),
    "a frame of objects": Taken(lambda: pd.DataFrame(TABLE).rename(columns=str).astype(object), TABLE),
    "a frame of booleans": Taken(
        lambda: pd.DataFrame(WHOLE > 127).rename(columns=str), (WHOLE > 127).astype(np.float64)
    ),
    "a frame of nullable booleans": Taken(
        lambda: pd.DataFrame(WHOLE > 127).rename(columns=str).astype("boolean"), (WHOLE > 127).astype(np.float64)
    ),
    **PLAIN_FRAMES,
}
