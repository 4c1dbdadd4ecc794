"""Settings: read once at the start, immutable afterwards.

`load` is the one way in; every mistake it finds is a `SettingsError` whose message names the file (or the environment
variable, or the option), the section and the key.
"""

from segmentd.settings.model import (
    ComplianceSettings,
    ConsoleSettings,
    CorsSettings,
    EventsSettings,
    GraphQLSettings,
    IdentifierSettings,
    ImportsSettings,
    KeySettings,
    LimitsSettings,
    MembersSettings,
    PassthroughSettings,
    RatesSettings,
    RuntimeSettings,
    ServerSettings,
    Settings,
    StorageSettings,
)
from segmentd.settings.observing import LogSettings, MetricsSettings, TracesSettings
from segmentd.settings.section import Section
from segmentd.settings.source import Override, SettingsError, environment_names, load
from segmentd.settings.store import StoreSettings

__all__ = [
    "ComplianceSettings",
    "ConsoleSettings",
    "CorsSettings",
    "EventsSettings",
    "GraphQLSettings",
    "IdentifierSettings",
    "ImportsSettings",
    "KeySettings",
    "LimitsSettings",
    "LogSettings",
    "MembersSettings",
    "MetricsSettings",
    "Override",
    "PassthroughSettings",
    "RatesSettings",
    "RuntimeSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "StorageSettings",
    "StoreSettings",
    "TracesSettings",
    "environment_names",
    "load",
]
