"""Tables of runs: reading, checking, and named data sets.

- :func:`read_table`, :func:`write_table`: CSV and its relatives, Parquet, NPZ.
- :func:`prepare`: a table checked and coded for fitting, a :class:`Table` with its notes.
- :func:`encode_new`: rows to predict, coded in the same way.
- :func:`load_dataset`, :func:`dataset_names`: real runs to try things on.
"""

from understudy.data.datasets import dataset_names, load_dataset
from understudy.data.readers import read_table, write_table
from understudy.data.table import NewRows, Note, Table, encode_new, prepare

__all__ = [
    "NewRows",
    "Note",
    "Table",
    "dataset_names",
    "encode_new",
    "load_dataset",
    "prepare",
    "read_table",
    "write_table",
]
