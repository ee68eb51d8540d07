"""Fast versions of the model's operations. Each docstring gives a plain reference, and a test compares the two.

The mathematics is elsewhere: `model.build` takes the decoder from transformers, and `model.relora` has ReLoRA.
"""
