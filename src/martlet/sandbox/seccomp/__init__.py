"""Which system calls a function may make: data, what compiles it, and what puts it in force.

- ``policy.toml`` says what is allowed, absent and refused, and why; ``numbers.tsv`` knows the calls by number.
- `policy` reads both for one architecture.
- `bpf` compiles them into a program for the kernel.
- `filter` loads the program into the calling process, for good.
- `denials` is for an observer of a process whose refused calls wait for an answer.
"""
