"""Packaging."""
from setuptools import find_packages, setup

setup(name="detrex", version="0.6.0", packages=find_packages(include=["detrex", "detrex.*"]), python_requires=">=3.10")
