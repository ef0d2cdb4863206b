"""The HTML report of a fitted surrogate: one file, readable without a network.

`write_report`
    Write the report of a `FittedSurrogate` to a path.
"""

from understudy.report.html import write_report

__all__ = ["write_report"]
