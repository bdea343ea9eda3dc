"""The methods that both clients have."""

from __future__ import annotations

from martlet.client import deploy, plans
from martlet.client.call import answered
from martlet.client.methods import Events, Method, Opened


class Api:
    """The management API, one method a request; each is described where its plan is written."""

    functions = Method(plans.functions)
    function = Method(plans.function)
    create = Method(plans.create)
    update = Method(plans.update)
    deploy = Method(deploy.deploy)
    delete = Method(plans.delete)

    invoke = Method(answered(plans.invocation))
    stream = Opened(plans.invocation)
    invoke_later = Method(plans.invoke_later)
    asynchronous = Method(plans.asynchronous)
    dead_letters = Method(plans.dead_letters)
    retry_dead_letter = Method(plans.retry_dead_letter)
    drop_dead_letter = Method(plans.drop_dead_letter)

    revisions = Method(plans.revisions)
    rollback = Method(plans.rollback)
    aliases = Method(plans.aliases)
    set_alias = Method(plans.set_alias)
    delete_alias = Method(plans.delete_alias)

    logs = Method(plans.logs)
    follow_logs = Events(plans.log_stream)
    invocations = Method(plans.invocations)
    scaling = Method(plans.scaling)
    stats = Method(plans.stats)

    instances = Method(plans.instances)
    stop_instance = Method(plans.stop_instance)

    keys = Method(plans.keys)
    create_key = Method(plans.create_key)
    rotate_key = Method(plans.rotate_key)
    revoke_key = Method(plans.revoke_key)

    builds = Method(plans.builds)
    build = Method(plans.build)
    build_log = Method(plans.build_log)
    cancel_build = Method(plans.cancel_build)

    images = Method(plans.images)
    add_image = Method(plans.add_image)
    build_images = Method(plans.build_images)
    scan_image = Method(plans.scan_image)
    remove_image = Method(plans.remove_image)

    runtimes = Method(plans.runtimes)
    nodes = Method(plans.nodes)
    drain_node = Method(plans.drain_node)
    resume_node = Method(plans.resume_node)
    health = Method(plans.health)
    ready = Method(plans.ready)
