"""The report; it draws with matplotlib's defaults and `style.py`, whatever the user's backend and matplotlibrc are.

matplotlib reads both while it is imported, and an unknown backend (a notebook's, in another environment) ends it.
"""

import os

os.environ.pop("MPLBACKEND", None)
os.environ["MATPLOTLIBRC"] = os.devnull
