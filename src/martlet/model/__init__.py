"""The nouns of Martlet as frozen types: what is stored, what travels, what people see.

Times are seconds since the epoch unless a name ends in ``_ms``; sizes are bytes; CPU is thousandths of a core.
"""

from martlet.model.access import ApiKey, Scope
from martlet.model.base import LATEST, Digest, Frozen, Integer, MiB
from martlet.model.build import Build, BuildPhase, BuildState, Waiting
from martlet.model.config import EnvironmentValue, ExecutionMode, FunctionConfig, Network
from martlet.model.function import Alias, Division, Draft, Function, FunctionState, Revision
from martlet.model.git import GitSource
from martlet.model.invocation import (
    PLATFORM,
    DeadInvocation,
    InstanceState,
    InstanceView,
    Invocation,
    InvocationAnswer,
    InvocationState,
    InvocationView,
    LogLine,
)
from martlet.model.names import (
    ALIAS_NAME,
    FUNCTION_NAME,
    IMAGE_NAME,
    IMAGE_REFERENCE,
    AliasName,
    FunctionName,
)
from martlet.model.node import Drain, Node, NodeLane, Role
from martlet.model.scaling import KeepAliveView, NodeScaling, ScalingAction, ScalingDecision

__all__ = [
    "ALIAS_NAME",
    "FUNCTION_NAME",
    "IMAGE_NAME",
    "IMAGE_REFERENCE",
    "LATEST",
    "PLATFORM",
    "Alias",
    "AliasName",
    "ApiKey",
    "Build",
    "BuildPhase",
    "BuildState",
    "DeadInvocation",
    "Digest",
    "Division",
    "Draft",
    "Drain",
    "EnvironmentValue",
    "ExecutionMode",
    "Frozen",
    "Function",
    "FunctionConfig",
    "FunctionName",
    "FunctionState",
    "GitSource",
    "InstanceState",
    "InstanceView",
    "Integer",
    "Invocation",
    "InvocationAnswer",
    "InvocationState",
    "InvocationView",
    "KeepAliveView",
    "LogLine",
    "MiB",
    "Network",
    "Node",
    "NodeLane",
    "NodeScaling",
    "Revision",
    "Role",
    "ScalingAction",
    "ScalingDecision",
    "Scope",
    "Waiting",
]
