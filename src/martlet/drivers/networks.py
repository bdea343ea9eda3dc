"""What functions may have of the network on this machine, and what they get that name nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from martlet.drivers import egress
from martlet.drivers.driver import State
from martlet.errors import Invalid
from martlet.model import Network
from martlet.settings import SystemSettings


@dataclass(frozen=True, slots=True)
class Networks:
    """See the module.

    Attributes:
        default: what a function gets that names none.
        refused: what is not given here, each with the reason and what to do.
        of_builds: what builds get that need one.
        lack: why builds have none although nobody has chosen that, with what to do; None where they have.
    """

    default: Network
    refused: Mapping[Network, str]
    of_builds: Network = Network.NONE
    lack: str | None = None

    @classmethod
    def of(cls, settings: SystemSettings) -> Networks:
        """Returns what there is on this machine under these settings; takes some 30 ms, because it tries.

        Raises:
            Invalid: a network that the settings name is not to be had.
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
        lack = None
        if Network.EGRESS in refused and settings.build_network is None:
            lack = f"{refused[Network.EGRESS]}; or set system.build_network to host"
        elif settings.build_network is Network.EGRESS and Network.EGRESS in refused:
            raise Invalid(f"system.build_network: {refused[Network.EGRESS]}", field="system.build_network")
        return cls(default, refused, settings.build_network or best, lack)
