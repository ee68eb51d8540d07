# The default study in a container (docs/container.md):
#   docker build -t relora-study . && docker run -v "$PWD/results:/work/results" relora-study
FROM python:3.11-slim-bookworm
WORKDIR /work
ENV PATH=/work/.venv/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
# Packages come before the code, so that a changed line of code installs nothing again.
COPY Makefile requirements.in requirements.txt ./
RUN make .venv/run
COPY Snakefile config.yaml CITATION.cff LICENSE ./
COPY workflow workflow
COPY workflow/profiles profiles
COPY resources resources
COPY paper paper
COPY envs envs
VOLUME /work/results
CMD ["snakemake", "--cores", "all"]
