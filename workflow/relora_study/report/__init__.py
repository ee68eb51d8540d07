"""The report: tables, figures, the web report's first page and the paper.

matplotlib reads MPLBACKEND and a matplotlibrc at its import, and an unknown backend, such as a notebook's, ends it.
The report draws with matplotlib's defaults and `style.py`, so both are cleared here, before any import of matplotlib.
"""

import os

os.environ.pop("MPLBACKEND", None)
os.environ["MATPLOTLIBRC"] = os.devnull
