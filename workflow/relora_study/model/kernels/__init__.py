"""What makes the model fast, each with its plain reference in its docstring, to which a test holds it.

The mathematics is elsewhere: the decoder is transformers' Llama (`model.build`), ReLoRA is in `model.relora`.
"""
