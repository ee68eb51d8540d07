"""Learning dynamics: spectra of weights, gradients and updates at every checkpoint of a cell."""
