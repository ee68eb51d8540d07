import os
from importlib.util import find_spec

if find_spec("torch") is None:  # as in its conda environment: transformers' tokenizers need none, and would warn
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
