"""The `container` rung on an engine with a daemon: Docker Engine, or podman's service, which speaks the same API.

driver ── service       finds the engine; starts podman's service where none answers
│   └── engine        talks to it
├── images            makes the root of a runtime, or a function that is an image, one of its images
├── cell              what the host holds for a container; document: what the engine is asked for
├── shown             what all containers of a lane see
├── visits            what takes power inside of a container, done from outside: code, scratch space, host name
└── verification      whether a container is confined as the engine was asked to
"""

from martlet.drivers.docker.driver import DockerDriver

__all__ = ["DockerDriver"]
