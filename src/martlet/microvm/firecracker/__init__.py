"""Firecracker: one microVM for each process, driven over a unix socket (https://firecracker-microvm.github.io).

    probe       which programs this machine has, whether their versions are supported, and whether /dev/kvm opens
    jailer      the command line that starts Firecracker in a chroot, what lies in there, and its removal
    client      the API: every call is one method, every document one of `models`
    errors      what went wrong, in Firecracker's words, and what to do about it
    script      what Firecracker is told so that a machine boots, is saved and goes on, as plain data
    monitor     says that, in the sandbox of a machine: one that waits for each answer; only the standard library
    template    how it makes a template
    machine     a clone of one, in the sandbox of its warden; only the standard library
    vsock       connections to ports of the guest, and from the guest to ports of the host
    mmds        environment and secrets as the guest reads them; only the standard library, so that the guest has it too

The client is held to Firecracker's own description of its API by tests; it has what microVMs of functions need, and
leaves out the rest (persistent memory, hotplugged memory, hinting and the serial device).
"""
