"""Tensors of a file brought together with the names and shapes of a module.

key_matching         names of the file <-> names of the module
key_conversion       how torchvision, timm and detectron2 name the same weights
position_embeddings  tables for another size of image or window
input_conv           kernels for images of another number of channels
"""
