#!/usr/bin/env python3
"""Counts the instructions that a release build executes for a message and for a push.

    loadtest/instructions.py [--messages 2000] BINARY [BINARY ...]

Each binary serves under valgrind's callgrind, with the defaults, on loopback. One client sends messages one after the
other and waits for each echo; then one backend posts to it one after the other. Each is done twice, with few and with
many, and the difference is divided by the difference in number, so that start and end of the process do not count. The
first binary is the reference for the ratios. Needs valgrind. Exit status: 0, or 1 if a run failed.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile

from siege import CONFIG, Backend, Client, free_port

WARM = 200            # messages of the short run
WAIT_SECONDS = 120.0  # for the start, one answer and the end of a process that valgrind slows down


async def start(binary, backend, folder):
    public, internal = free_port(), free_port()
    path = os.path.join(folder, "tidegate.yaml")
    with open(path, "w") as config:
        config.write(CONFIG.format(public=public, internal=internal, backend=backend.port, extra=""))
    log = open(os.path.join(folder, "log"), "wb")
    process = subprocess.Popen(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", binary, "serve", "--config", path],
        stderr=log, stdout=subprocess.DEVNULL,
    )
    for _ in range(int(WAIT_SECONDS / 0.2)):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", public)
            writer.close()
            return process, public, internal
        except OSError:
            await asyncio.sleep(0.2)
    process.kill()
    raise SystemExit(f"{binary} did not listen within {WAIT_SECONDS:.0f} s")


async def post(reader, writer, connection):
    writer.write(
        f"POST /prod/@connections/{connection} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 128\r\n\r\n{'x' * 128}".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0] + b" ":
        raise SystemExit(f"a push failed: {head!r}")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length.group(1)) if length else 0)


async def run(binary, messages, pushes):
    """Returns the instructions of one whole run."""
    backend = Backend()
    await backend.start()
    with tempfile.TemporaryDirectory() as folder:
        process, public, internal = await start(binary, backend, folder)
        try:
            client = await Client.connect(public, timeout=WAIT_SECONDS)
            connection = await client.echo("whoami")
            for _ in range(messages):
                await asyncio.wait_for(client.echo('{"action":"echo","text":"' + "x" * 100 + '"}'), WAIT_SECONDS)
            reader, writer = await asyncio.open_connection("127.0.0.1", internal)
            for _ in range(pushes):
                await asyncio.wait_for(post(reader, writer, connection), WAIT_SECONDS)
            writer.close()
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, WAIT_SECONDS)
        with open(f"{folder}/out") as out:
            return int(re.search(r"^(?:totals|summary): (\d+)", out.read(), re.MULTILINE).group(1))


async def measure(binary, count):
    warm = await run(binary, WARM, WARM)
    message = (await run(binary, WARM + count, WARM) - warm) / count
    push = (await run(binary, WARM, WARM + count) - warm) / count
    return message, push


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("binaries", nargs="+")
    arguments = parser.parse_args()
    reference = None
    print(f"{'message':>12} {'push':>12}  ratios to the first")
    for binary in arguments.binaries:
        message, push = asyncio.run(measure(binary, arguments.messages))
        reference = reference or (message, push)
        ratios = f"{message / reference[0]:.3f} x, {push / reference[1]:.3f} x"
        print(f"{message:12.0f} {push:12.0f}  {ratios}  {binary}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
