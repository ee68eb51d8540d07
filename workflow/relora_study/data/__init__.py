"""From a corpus to token ids: read documents, train a tokenizer and encode, or convert shards of token ids."""

import os
from importlib.util import find_spec

# As in this stage's conda environment. Transformers would warn, though tokenizers need no torch.
if find_spec("torch") is None:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
