"""Odd frames: columns of pyarrow's dtypes, missing cells by name, and all of it in polars where it is installed."""

import importlib.util
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
from odd_kinds import Refused, Taken, words

N_ROWS, WIDTH = 40, 16
RNG = np.random.default_rng(1)
TABLE = RNG.normal(size=(N_ROWS, WIDTH)).astype(np.float32).astype(np.float64)
BITS = RNG.integers(0, 2, size=(N_ROWS, WIDTH)).astype(bool)
NAMES = [f"c{i}" for i in range(WIDTH)]
COLOURS = ["red", "green"] * (N_ROWS // 2)
DAYS = [date(2024, 1, 1) + timedelta(days=i) for i in range(N_ROWS)]
SKRUB = "make_pipeline(skrub.TableVectorizer()"


def frame(**columns):
    """A frame of pandas with three columns of numbers and others."""
    return pd.DataFrame(TABLE[:, :3], columns=["a", "b", "c"]).assign(**columns)


def with_lost(value):
    """A frame with an odd float in three rows of one column."""
    column = TABLE[:, 3].copy()
    column[[7, 9, 30]] = value
    return frame(income=column)


ODD_FRAMES = {
    "a frame with NaN": Refused(
        lambda: with_lost(np.nan), words("'income' (NaN in row 7 and 2 more)", "make_pipeline(SimpleImputer()")
    ),
    "a frame with infinity": Refused(lambda: with_lost(np.inf), words("'income' (infinity in row 7 and 2 more)")),
    "a frame with None among numbers": Refused(
        lambda: frame(income=pd.Series([1.5, None] * 20, dtype=object)), words("'income' (NaN in row 1 and 19 more)")
    ),
    "a frame to be vectorized": Refused(
        lambda: frame(city=COLOURS, since=pd.to_datetime(DAYS), n=pd.array([1, None] * 20, dtype="Int64")),
        words("'city' (", "'since' (datetime64", "'n' (Int64), missing in row 1 and 19 more", SKRUB, "OODDetector()"),
    ),
    "a column of mixed objects": Refused(lambda: frame(d=[1.0, "x"] * 20), words("'d' (object)", "encode", SKRUB)),
}
PLAIN_FRAMES = {}

if importlib.util.find_spec("pyarrow"):
    ODD_FRAMES |= {
        "a column of arrow's text": Refused(
            lambda: frame(d=pd.array(COLOURS, dtype="string[pyarrow]")), words("'d' (string)", "encode", SKRUB)
        ),
        "a column of arrow's dates": Refused(
            lambda: frame(d=pd.Series(DAYS, dtype="date32[pyarrow]")), words("'d' (date32", "numbers of a unit", SKRUB)
        ),
        "a column of arrow's times": Refused(
            lambda: frame(d=pd.Series(pd.to_datetime(DAYS)).astype("timestamp[us][pyarrow]")),
            words("'d' (timestamp", "numbers of a unit", SKRUB),
        ),
        "a column of arrow's integers with a missing cell": Refused(
            lambda: frame(d=pd.array([1, None] * 20, dtype="int64[pyarrow]")),
            words("'d' (int64[pyarrow]), missing in row 1", "impute"),
        ),
    }
    PLAIN_FRAMES |= {
        "a frame of arrow's numbers": Taken(
            lambda: pd.DataFrame(TABLE, columns=NAMES).astype("double[pyarrow]"), TABLE
        ),
    }

if importlib.util.find_spec("polars"):
    import polars

    def of_polars(**columns):
        """A frame of polars with three columns of numbers and others."""
        return polars.DataFrame({name: TABLE[:, i] for i, name in enumerate("abc")} | columns)

    ODD_FRAMES |= {
        "polars: text": Refused(lambda: of_polars(d=COLOURS), words("'d' (String)", "encode", SKRUB)),
        "polars: categories": Refused(
            lambda: of_polars(d=polars.Series(COLOURS, dtype=polars.Categorical)), words("'d' (Categorical", SKRUB)
        ),
        "polars: dates": Refused(lambda: of_polars(d=DAYS), words("'d' (Date)", "numbers of a unit", SKRUB)),
        "polars: durations": Refused(lambda: of_polars(d=[timedelta(days=1)] * N_ROWS), words("'d' (Duration")),
        "polars: lists": Refused(lambda: of_polars(d=[[1, 2]] * N_ROWS), words("'d' (List(Int64))")),
        "polars: missing integers": Refused(
            lambda: of_polars(d=[1, None] * 20), words("'d' (Int64), missing in row 1 and 19 more", "fill_null", SKRUB)
        ),
        "polars: missing booleans": Refused(
            lambda: of_polars(d=[None, True] * 20), words("'d' (Boolean), missing in row 0", "fill_null")
        ),
        "polars: nothing but missing": Refused(lambda: of_polars(d=[None] * 40), words("'d' (Null)", "fill_null")),
        "polars: NaN": Refused(
            lambda: of_polars(d=[0.5] * 39 + [float("nan")]), words("'d' (NaN in row 39)", "SimpleImputer")
        ),
        "polars: objects": Refused(
            lambda: of_polars(d=polars.Series([object()] * N_ROWS, dtype=polars.Object)),
            words("'d' (Object)", "encode"),
        ),
        "polars: not computed": Refused(lambda: of_polars().lazy(), words("LazyFrame", "X.collect()")),
    }
    PLAIN_FRAMES |= {
        "polars": Taken(lambda: polars.DataFrame(TABLE, schema=NAMES), TABLE),
        "polars: float32": Taken(lambda: polars.DataFrame(TABLE.astype(np.float32), schema=NAMES), TABLE, 1e-3),
        "polars: booleans": Taken(lambda: polars.DataFrame(BITS, schema=NAMES), BITS.astype(np.float64)),
        "polars: booleans among numbers": Taken(
            lambda: polars.DataFrame({name: (BITS if i % 2 else TABLE)[:, i] for i, name in enumerate(NAMES)}),
            np.where(np.arange(WIDTH) % 2, BITS, TABLE),
        ),
        "polars: whole numbers": Taken(
            lambda: polars.DataFrame(BITS.astype(np.uint8), schema=NAMES), BITS.astype(np.float64)
        ),
        "polars: decimals": Taken(
            lambda: polars.DataFrame([[Decimal(str(round(x, 3))) for x in column] for column in TABLE.T], schema=NAMES),
            TABLE.round(3),
        ),
    }
