"""The version of this software. CITATION.cff and CHANGELOG.md name it, too; a test holds them to it.

It has a module of its own: what a stage imports decides whether its results are measured again.
"""

VERSION = "1.0.0"
