"""All architectures of timm and torchvision: a table to search, and each one analysed.

table         the table, backbones.csv; it imports nothing heavy
describe      one architecture, seen on the meta device
descriptions  those that were made before
rebuild       both made anew from the libraries that are installed
"""
