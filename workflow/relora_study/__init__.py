"""ReLoRA against full-rank training of small language models: data, training, evaluation, spectra, report."""
