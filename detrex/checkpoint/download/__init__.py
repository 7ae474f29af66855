"""From an address to a file: fetched once, verified, whole or not at all, then from the cache.

addresses      which scheme goes where
http_download  one download over HTTP
cache          where a fetched file lies
"""

from detrex.checkpoint.download.addresses import fetch, is_address
from detrex.checkpoint.download.cache import (
    cache_dir,
    cached_path,
    has_promised_hash,
    hash_in_name,
)
from detrex.checkpoint.download.http_download import fetch_url

__all__ = [
    "cache_dir",
    "cached_path",
    "fetch",
    "fetch_url",
    "has_promised_hash",
    "hash_in_name",
    "is_address",
]
