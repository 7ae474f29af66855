"""From an address to a file: fetched once, verified, whole or not at all, then from the cache.

addresses      which scheme goes where
http_download  one download over HTTP: continued after a fault, verified, put in its place
connections    what is asked, and which redirects are followed
hub            files of the Hugging Face hub
watch          the bounds of a download, and what ends it
turns          one process fetches, the others wait
cache          where a fetched file lies
urls           addresses checked, and shown without what they keep secret
"""

from detrex.checkpoint.download.addresses import (
    fetch,
    is_address,
    is_file_of_repository,
    is_repository,
    names_hub,
)
from detrex.checkpoint.download.cache import (
    cache_dir,
    cached_path,
    has_promised_hash,
    hash_in_name,
)
from detrex.checkpoint.download.http_download import fetch_url
from detrex.checkpoint.download.urls import shown, without_secrets

__all__ = [
    "cache_dir",
    "cached_path",
    "fetch",
    "fetch_url",
    "has_promised_hash",
    "hash_in_name",
    "is_address",
    "is_file_of_repository",
    "is_repository",
    "names_hub",
    "shown",
    "without_secrets",
]
