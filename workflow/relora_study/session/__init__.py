"""A Snakemake session: what it stages at its start, its progress, and how it ends."""
