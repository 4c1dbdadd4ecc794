"""segmentd: an audience-membership server that speaks the Optimizely Data Platform v3 API."""

__version__ = "0.1.0"
