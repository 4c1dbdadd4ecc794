"""How the properties are run: no example is too slow, because time is no property of the actors."""

from hypothesis import settings

settings.register_profile("segmentd", deadline=None)
settings.load_profile("segmentd")
