"""What functions may have of the network on this machine, and what they get that name nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from martlet.config import SystemSettings
from martlet.drivers import egress
from martlet.drivers.driver import State
from martlet.errors import Invalid
from martlet.model import Network


@dataclass(frozen=True, slots=True)
class Networks:
    """See the module.

    Attributes:
        default: what a function gets that names none.
        refused: what is not given here, each with the reason and what to do.
    """

    default: Network
    refused: Mapping[Network, str]

    @classmethod
    def of(cls, settings: SystemSettings) -> Networks:
        """Returns what there is on this machine under these settings; takes some 30 ms, because it tries.

        Raises:
            Invalid: the default that the settings name is not to be had.
        """
        refused = {}
        given = egress.guarantee(settings.egress_subnet)
        if given.state is State.MISSING:
            refused[Network.EGRESS] = f"this machine cannot give egress, {given.why}: {given.remedy}"
        if not settings.allow_host_network:
            refused[Network.HOST] = "the operator does not allow host (system.allow_host_network)"
        best = Network.NONE if Network.EGRESS in refused else Network.EGRESS
        default = settings.default_network or best
        if default in refused:
            raise Invalid(f"system.default_network: {refused[default]}", field="system.default_network")
        return cls(default, refused)
