"""Deploys: every change of what a function runs, from what was sent to a revision that serves.

A deploy packs the code, builds its dependencies, starts one instance to see that it loads, writes the revision
and then lets the function point at it. Until that last write nothing has changed for anybody, so a deploy that
fails, or is cut off at any point, leaves behind at most what `Garbage` removes.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import time

import structlog

from martlet.builder.builder import Builder, Order
from martlet.builder.builds import CANCELLED, Begun, Builds, HandedOver, new_build
from martlet.builder.hold import Hold
from martlet.builder.packages import Claim, PackageStore
from martlet.builder.running import Outcome, RunningBuild
from martlet.builder.source import Archive, Git, Inline, Local, make_package
from martlet.control.builders import Builders
from martlet.control.configuration import Configuration
from martlet.control.deploy import Deploy, Expect, discard
from martlet.control.garbage import Garbage
from martlet.control.publishing import Current, Publishing
from martlet.control.queue import Queue
from martlet.control.roots import Roots
from martlet.control.sweeping import Sweeping
from martlet.control.trial import Trial
from martlet.errors import Conflict, FunctionLoadFailed, FunctionNotFound, Invalid
from martlet.model import Build, BuildState, FunctionConfig, Revision, Waiting
from martlet.package.ignore import Ignore
from martlet.package.packing import pack
from martlet.package.rules import Limits
from martlet.settings import SystemSettings
from martlet.storage.blobs import BlobError
from martlet.storage.registry import Registry
from martlet.storage.store import GuardLost, StoreError

log = structlog.get_logger()

MOST_ATTEMPTS = 3
IMAGE_FILE = "image"
"""The only file of a function that has no code besides its image: says which."""
GIVEN_UP = (
    f"the platform ended {MOST_ATTEMPTS} times while this was built, perhaps because of it; deploy it again"
)

UNREACHABLE = "the platform was restarted and what was sent is out of its reach; deploy it again"


@dataclass(slots=True)
class Attempt:
    """A deploy that has the lock of its function, with the function as it is now and as it is to be configured; the
    runtime may be settled once the code is there."""

    deploy: Deploy
    build: RunningBuild
    claim: Claim
    current: Current | None
    config: FunctionConfig

    @property
    def before(self) -> Revision:
        """The revision that serves now; there is one, or else the deploy has brought code."""
        assert self.current is not None
        return self.current.revision

    @property
    def keeps_packages(self) -> bool:
        """Whether neither code nor anything that decides what is built of it has changed."""
        if self.deploy.source is not None or self.deploy.upgrade:
            return False
        return _decisive(self.config) == _decisive(self.before.config)

    def is_current(self, code: str, dependencies: str | None) -> bool:
        """Whether a revision of these packages serves already."""
        wanted = (code, dependencies, self.config)
        return self.current is not None and wanted == (
            self.before.code,
            self.before.dependencies,
            self.before.config,
        )


class Deployments:
    """See the module.

    Args:
        settings: of the platform: limits of packages and builds.
        configuration: makes configurations.
        publishing: writes what functions point at.
        trial: tries revisions.
        roots: makes what containers see as their root.
        packages: keeps packages.
        builds: runs deploys and remembers them.
        builder: makes what runs of what was sent.
        builders: the machines that build.
        registry: where builds are that other machines run.
        uploads: the folder of uploads.
        queue: keeps deploys until they have ended.
        garbage: removes what is not needed any more.
        sweeping: says when no other machine does.
    """

    def __init__(
        self,
        *,
        settings: SystemSettings,
        configuration: Configuration,
        publishing: Publishing,
        trial: Trial,
        roots: Roots,
        packages: PackageStore,
        builds: Builds,
        builder: Builder,
        builders: Builders,
        registry: Registry,
        uploads: Path,
        queue: Queue,
        garbage: Garbage,
        sweeping: Sweeping,
    ) -> None:
        self._limits = Limits(bytes=settings.max_package, entries=settings.max_package_files)
        self._configuration = configuration
        self._publishing = publishing
        self._trial = trial
        self._roots = roots
        self._packages = packages
        self._builds = builds
        self._builder = builder
        self._builders = builders
        self._registry = registry
        self._uploads = uploads
        self._queue = queue
        self._garbage = garbage
        self._sweeping = sweeping

    async def begin(self, deploy: Deploy, *, keep: bool = True) -> RunningBuild | Begun:
        """Starts a deploy and returns the build that it is; ``task`` of that ends when the deploy has.

        It runs here, if this machine builds what it needs, or else on the first that takes it from the queue.

        The source belongs to the deploy from now on: it discards it.

        Args:
            deploy: what to do.
            keep: whether the next life of this process goes on with it where this one ends.

        Raises:
            Invalid: the configuration is not allowed, or there is no code.
            Conflict: the function exists already.
            FunctionNotFound: it does not exist.
            Unavailable: no machine builds.
        """
        build = new_build(deploy.name)
        try:
            current = await self._publishing.current(deploy.name)
            config = self._plan(deploy, current)
            # Nothing is built for an image, and it is where it was added.
            if config.image is None and self._builders.is_theirs(config.runtime):
                return await self._leave(build, deploy, config, current)
            hold = await self._queue.put(build.id, deploy, build.started) if keep else None
            return self._builds.begin(build, partial(self._run, deploy), hold, partial(self._forget, hold))
        except BaseException:
            discard(deploy)
            raise

    async def _leave(
        self, build: Build, deploy: Deploy, config: FunctionConfig, current: Current | None
    ) -> Begun:
        """Leaves a deploy to another machine."""
        if isinstance(deploy.source, Local):
            deploy = replace(deploy, source=await asyncio.to_thread(self._upload, deploy.source))
        unknown = isinstance(deploy.source, Archive) and deploy.names_no_runtime(current)
        await self._queue.leave(build.id, deploy, build.started, "" if unknown else config.runtime)
        with suppress(Conflict):  # whoever has taken it up was quicker
            await self._registry.put_build(build, expect_revision=0)
        discard(deploy)
        return self._builds.expect(build)

    def _upload(self, source: Local) -> Inline | Archive:
        """Returns what lies on this machine as it is sent to another."""
        if source.file is not None:
            return Inline(source.read(), source.file)
        target = Archive(self._uploads / f"{secrets.token_hex(8)}.tar.gz")
        pack(source.path, target.path, self._limits, Ignore.of(source.path))
        return target

    async def take_up(self, waiting: Waiting, written: int) -> None:
        """Begins here what waits in the queue: what nobody has, or what somebody was cut off in.

        Args:
            waiting: as the queue has it.
            written: the store revision that wrote it.
        """
        hold = await self._queue.take(waiting, written)
        if hold is None:
            return
        build = await self._builds.again(waiting.build) or new_build(waiting.function, waiting.build)
        if build.finished is not None:  # and only the queue does not know
            await self._forget(hold)
        elif waiting.cancelled:
            await self._give_up(hold, build, CANCELLED, BuildState.CANCELLED)
        elif waiting.attempts - waiting.stops >= MOST_ATTEMPTS:
            await self._give_up(hold, build, GIVEN_UP)
        else:
            try:
                said = await self._builds.said(build)
                deploy = await self._queue.deploy(waiting, Archive(self._uploads / waiting.build))
            except BlobError as error:
                log.warning("upload_not_fetched", build=waiting.build, error=str(error))
                await self._give_up(hold, build, UNREACHABLE)
                return
            work, done = partial(self._run, deploy), partial(self._forget, hold)
            running = self._builds.begin(build, work, hold, done, said)
            if waiting.attempts:
                attempt = waiting.attempts - waiting.stops + 1
                running.say(f"the platform was restarted; this is attempt {attempt} of {MOST_ATTEMPTS}")

    async def _give_up(
        self, hold: Hold, build: Build, why: str, state: BuildState = BuildState.FAILED
    ) -> None:
        with suppress(GuardLost):  # then it is another machine's again
            await self._builds.give_up(hold, build, why, state)
            await self._forget(hold)

    async def _forget(self, hold: Hold | None) -> None:
        """Takes a deploy that has ended from the queue, if it is there."""
        if hold is not None:
            with suppress(StoreError, BlobError):  # then it is tried again, and finds itself done
                await self._queue.drop(hold)

    async def rollback(self, name: str, number: int) -> None:
        """Makes an older revision the one that serves, once it has shown that it still loads.

        Raises:
            FunctionNotFound: there is no such function or revision.
            FunctionLoadFailed: it does not load; what serves still does.
        """
        async with self._publishing.lock(name):
            current = await self._publishing.serving(name)
            revision = await self._publishing.revision(name, number)
            if number != current.revision.number:
                if self._roots.needs(revision.config):
                    await self._roots.make(self._configuration.runtime(revision.config), log.info)
                await self._trial.load(revision)
                await self._publishing.point(current, number)

    async def delete(self, name: str) -> None:
        """Deletes a function and everything of it. Raises `FunctionNotFound`."""
        async with self._publishing.lock(name):
            await self._publishing.withdraw(name)
        self._garbage.sweep_soon()

    def _plan(self, deploy: Deploy, current: Current | None) -> FunctionConfig:
        """Returns the configuration that is deployed, having checked what can be without building."""
        if current is None:
            if deploy.expect is Expect.PRESENT:
                raise FunctionNotFound(f"there is no function {deploy.name!r}")
            if deploy.source is None and deploy.config.get("image") is None:
                raise Invalid("code: a new function needs code", field="code")
        elif deploy.expect is Expect.ABSENT:
            raise Conflict(
                f"there is a function {deploy.name!r} already; PUT /functions/{deploy.name} changes it"
            )
        config = self._configuration.changed(deploy.config_before(current), deploy.config)
        if deploy.names_no_runtime(current) and deploy.source is not None and deploy.source.file:
            return self._configuration.for_file(config, deploy.source.file)
        return config

    async def _run(self, deploy: Deploy, build: RunningBuild) -> Outcome:
        try:
            await self._sweeping.over()
            async with self._publishing.lock(deploy.name):
                with self._packages.claim() as claim:
                    current = await self._publishing.current(deploy.name)
                    config = self._plan(deploy, current)
                    if current is None and deploy.source is None:
                        deploy = replace(deploy, source=Inline(f"{config.image}\n"))
                    attempt = Attempt(deploy, build, claim, current, config)
                    return await self._deploy(attempt)
        finally:
            discard(deploy)

    async def _deploy(self, attempt: Attempt) -> Outcome:
        name, build = attempt.deploy.name, attempt.build
        build.enter(BuildState.PACKING)
        source, code, dependencies = await self._build(attempt)
        if attempt.is_current(code, dependencies):
            build.say(f"{attempt.before.id} is the same and serves already")
            return Outcome(attempt.before.number, unchanged=True)
        if self._roots.needs(attempt.config):
            async with build.slot():
                await self._roots.make(self._configuration.runtime(attempt.config), build.say)
        build.enter(BuildState.PACKED)
        number, current = await self._publishing.reserve(name, attempt.current, build.registry)
        revision = Revision(
            function=name,
            number=number,
            config=attempt.config,
            source=None if source == code else source,
            commit=build.build.commit or (attempt.before.commit if attempt.deploy.source is None else None),
            code=code,
            dependencies=dependencies,
            created=time(),
        )
        await self._try(revision, build)
        build.commit()
        await self._publishing.publish(revision, current, build.registry)
        build.say(f"{revision.id} serves")
        await self._garbage.prune(name)
        return Outcome(number)

    async def _build(self, attempt: Attempt) -> tuple[str, str, str | None]:
        """Returns the digests of the source, of what runs, and of what that needs."""
        if attempt.keeps_packages:
            before = attempt.before
            source = before.source or before.code
            for digest in filter(None, (source, before.code, before.dependencies)):
                await attempt.claim.has(digest)
            return source, before.code, before.dependencies
        source, folder = await self._pack(attempt)
        await self._check_is_built_here(attempt)
        order = Order(
            runtime=self._configuration.runtime(attempt.config),
            config=attempt.config,
            source=source,
            folder=folder,
            build=attempt.build,
            claim=attempt.claim,
            upgrade=attempt.deploy.upgrade,
        )
        return source, await self._builder.code(order), await self._builder.dependencies(order)

    async def _check_is_built_here(self, attempt: Attempt) -> None:
        """Leaves it to another machine where only the code has shown that this one cannot build it.

        Raises:
            HandedOver: another has it.
            Invalid: none can build it.
        """
        runtime, build = attempt.config.runtime, attempt.build
        if attempt.config.image is not None or not self._builders.is_theirs(runtime):
            return
        if build.hold is None or not self._builders.others_can(runtime):
            raise self._builders.lack_of(runtime)
        build.say(f"this machine does not build {runtime}: it is left to one that does")
        raise HandedOver(runtime)

    async def _pack(self, attempt: Attempt) -> tuple[str, Path]:
        """Stores the source; returns its digest, and the folder it lies in."""
        source, build = attempt.deploy.source, attempt.build
        if source is None:
            digest, folder = attempt.before.source or attempt.before.code, build.folder / "code"
            await attempt.claim.has(digest)
            await self._packages.unpack(digest, folder)
            return digest, folder
        if isinstance(source, Git):
            fetched, commit = await self._builder.fetch(source.source, build)
            source = Local(fetched)
            build.note_commit(commit)
        file_name = None
        if attempt.config.image is not None:
            file_name = IMAGE_FILE
        elif not isinstance(source, Archive):
            await self._check_is_built_here(attempt)
            file_name = self._configuration.runtime(attempt.config).description.inline_file
        package, folder = await asyncio.to_thread(make_package, source, build.folder, file_name, self._limits)
        if source.file is None and attempt.deploy.names_no_runtime(attempt.current):
            attempt.config = self._configuration.for_folder(attempt.config, folder)
            build.say(f"the files are for the runtime {attempt.config.runtime}")
        build.say(f"packed {package.entries} entries, {package.bytes} bytes")
        await attempt.claim.add(package)
        return package.digest, folder

    async def _try(self, revision: Revision, build: RunningBuild) -> None:
        """Starts an instance of a revision that nothing points at yet."""
        build.enter(BuildState.LOADING)
        build.say(f"loading {revision.id}")
        try:
            loaded = await self._trial.load(revision)
        except FunctionLoadFailed as error:
            traceback, printed = str(error.extra.pop("traceback", "")), error.extra.pop("log", ())
            # Between "Traceback" and the error, which is told anyway.
            for line in filter(str.strip, traceback.splitlines()[1:-1] if traceback else printed):
                build.say(line)
            raise
        build.say(f"loaded in {loaded['load_ms']:.1f} ms, runs as {loaded['mode']}")


def _decisive(config: FunctionConfig) -> tuple[object, ...]:
    return config.runtime, config.handler, config.memory, config.dependencies
