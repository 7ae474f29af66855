"""A project of one's own: from labelled pictures to a config that trains a detector on them."""

from detrex.project.creating import Project, create_project

__all__ = ["Project", "create_project"]
