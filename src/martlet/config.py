"""How the settings are found: a YAML file, the ``FAAS_*`` variables, and flags of the command line.

Precedence, from weak to strong: defaults, the file, the environment, flags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from martlet.errors import Invalid
from martlet.model import ExecutionMode
from martlet.queue_address import QUEUE_PASSWORD_VARIABLE, RedisAddress
from martlet.settings import Settings
from martlet.store_address import PASSWORD_VARIABLE, EtcdAddress
from martlet.validation import validated

ENVIRONMENT = {
    "FAAS_DEFAULT_MODE": "default_mode",
    "FAAS_API_PORT": "api_gateway_port",
    "FAAS_LOG_LEVEL": "logging_level",
    "FAAS_DISABLE_CONTAINER": "disable_container",
}
CONFIG_FILE_VARIABLE = "FAAS_CONFIG_FILE"


def load_settings(
    path: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Reads, merges and validates the configuration.

    Args:
        path: the YAML file; None takes the one that ``FAAS_CONFIG_FILE`` names, if any.
        environment: where the ``FAAS_*`` variables are looked up.
        flags: keys of ``system:`` set on the command line; those that are None are ignored.

    Raises:
        Invalid: a value is not allowed; ``field`` names it (``system.lanes``) and the message says what to do.
    """
    if path is None and environment.get(CONFIG_FILE_VARIABLE):
        path = Path(environment[CONFIG_FILE_VARIABLE])
    document = _read(path) if path is not None else {}
    system = dict(document.get("system") or {})
    system |= {key: environment[name] for name, key in ENVIRONMENT.items() if environment.get(name)}
    system |= {key: value for key, value in (flags or {}).items() if value is not None}
    functions = {name: dict(given or {}) for name, given in (document.get("functions") or {}).items()}
    for given in functions.values():
        given.setdefault("execution_mode", system.get("default_mode", ExecutionMode.PROCESS))
        if given.get("path") and path is not None:
            given["path"] = path.absolute().parent / given["path"]
    settings = validated(Settings, {**document, "system": system, "functions": functions})
    settings = _with_password(settings, environment.get(PASSWORD_VARIABLE))
    settings = _with_queue_password(settings, environment.get(QUEUE_PASSWORD_VARIABLE))
    if settings.system.development and not settings.system.on_loopback:
        raise Invalid(
            f"development mode has well-known keys and {settings.system.host} is reachable from other machines: "
            "listen on 127.0.0.1, or turn development off and make a key with `martlet keys create`",
            field="system.development",
        )
    return settings


def _with_password(settings: Settings, password: str | None) -> Settings:
    """Returns the settings with the password of the store that the environment has, if any."""
    store = settings.system.store
    if not password or not isinstance(store, EtcdAddress):
        return settings
    try:
        store = store.with_password(password)
    except ValueError as error:
        raise Invalid(f"system.store: {error}", field="system.store") from None
    system = settings.system.model_copy(update={"store": store})
    return settings.model_copy(update={"system": system})


def _with_queue_password(settings: Settings, password: str | None) -> Settings:
    """Returns the settings with the password of the queues that the environment has, if any."""
    queue = settings.system.queue
    if not password or not isinstance(queue, RedisAddress):
        return settings
    system = settings.system.model_copy(update={"queue": queue.with_password(password)})
    return settings.model_copy(update={"system": system})


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise Invalid(
            f"cannot read the configuration file {path}: {error.strerror}", field="config_file"
        ) from None
    except yaml.YAMLError as error:
        raise Invalid(f"{path} is not YAML: {error}", field="config_file") from None
    if not isinstance(document, dict):
        raise Invalid(f"{path} must hold a table with system: and functions:", field="config_file")
    return document
