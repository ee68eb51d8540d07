"""The configuration: a schema of all keys, the reading of files and the command line, and the cells of a study.

`python -m relora_study.config` writes three things from the schema: the JSON schema for editors,
docs/configuration.md, and the comments in config.yaml.
"""

from .cells import Cell, cells
from .data import Data, Files, HubPretokenized, Tokenizer
from .experiments import Point, Range, Space, Sweep, Tuning
from .fields import Section, SectionT
from .measuring import Dynamics, Evaluation, MinimalPairs, Perplexity, Report, Sharing
from .method import Method, RateRatios, SizeRecipe
from .reading import check, read_section, read_study
from .study import PAPERS_SIZES, Selection, Study, cell_name
from .training import Model, Recipe, Runtime, Size, Train
