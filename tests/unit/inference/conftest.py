"""Property tests here have no deadline: how long one example takes on a busy machine says nothing about the code."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
