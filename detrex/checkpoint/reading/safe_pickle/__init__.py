"""Pickles read as plain data, never running code of the file's.

unpickler   the pickle machine, without calls of the file's choice
values      the arrays and containers that a pickle may name
tensors     the tensors that a pickle may name
plain_data  the bounds that a stranger's content has to keep
"""
