"""What things cost, and what they are worth: steps of a config timed, backbones compared.

timing       the parts of one config's training and evaluation
turns        calls that take turns in one process
environment  where a measurement was taken
study        the same small detector over many backbones
"""
