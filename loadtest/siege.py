#!/usr/bin/env python3
"""Attacks a release build with its defaults, one way at a time, and watches what everybody else notices.

    loadtest/siege.py [--seconds 120] [--binary target/release/tidegate] [ATTACK ...]

During each attack an open client chats through a real backend and `/healthz` is asked four times a second; afterwards
SIGTERM has to end the process. An attack is withstood when every message was answered, every `/healthz` came within
a second, the memory stayed within the bound given here, and the process ended with 0 inside its grace. Everything is on
loopback. Exit status: 0 all withstood, 1 not, 2 bad usage.
"""

import argparse
import asyncio
import base64
import datetime
import hashlib
import hmac
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time

HEALTH_MAX = 1.0       # seconds: what the gateway promises under attack
CHAT_MAX = 5.0         # seconds for one message there and back
GRACE = 30.0           # the default of drain.graceMillis
MIB = 1024 * 1024

CONFIG = """
listeners: {{ public: {{ address: "127.0.0.1:{public}" }}, internal: {{ address: "127.0.0.1:{internal}" }} }}
{extra}
apis:
  chat:
    routeSelectionExpression: $request.body.action
    integrations: {{ backend: {{ integrationType: AWS_PROXY, integrationUri: "http://127.0.0.1:{backend}/" }} }}
    routes:
      $connect: {{ target: integrations/backend }}
      $disconnect: {{ target: integrations/backend }}
      $default: {{ target: integrations/backend, routeResponseSelectionExpression: $default }}
    stages: {{ prod: {{}} }}
"""


class Backend:
    """A backend that echoes messages, and can leave `$disconnect` unanswered."""

    def __init__(self):
        self.hang_disconnects = False
        self.disconnects = set()
        self.cleanup = None

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                headers = dict(
                    (name.lower(), value.strip())
                    for name, _, value in (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
                )
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if headers.get("x-tidegate-event-type") == "DISCONNECT":
                    while self.hang_disconnects:
                        await asyncio.sleep(0.2)
                    self.disconnects.add(headers["x-tidegate-connection-id"])
                event = json.loads(body)
                text = event.get("body") or "ok"
                if text == "whoami":
                    text = event["requestContext"]["connectionId"]
                answer = json.dumps({"statusCode": 200, "body": text}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the connection, or the siege, is over
        finally:
            writer.close()


class Gateway:
    """A gateway process of its own, with the defaults and what `extra` adds."""

    def __init__(self, binary, backend, extra="", files=None, stderr=None, env=None):
        self.public, self.internal = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "tidegate.yaml")
        with open(path, "w") as config:
            config.write(CONFIG.format(public=self.public, internal=self.internal, backend=backend.port, extra=extra))
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None
        self.log = stderr if stderr is not None else open(os.path.join(self.folder.name, "log"), "wb")
        environment = dict(os.environ, **(env or {}))
        self.process = subprocess.Popen(
            [binary, "serve", "--config", path], stderr=self.log, stdout=subprocess.DEVNULL, preexec_fn=limit,
            env=environment,
        )

    async def ready(self):
        for _ in range(400):
            try:
                status, _ = await http(self.internal, "/readyz")
                if status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)
        raise SystemExit("the gateway did not become ready")

    def memory(self):
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    async def stop(self):
        self.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        while self.process.poll() is None and time.monotonic() - begun < GRACE + 5:
            await asyncio.sleep(0.05)
        took = time.monotonic() - begun
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait(), took


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def http(port, path, method="GET", headers="", body="", timeout=10.0):
    async def call():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{headers}\r\n{body}".encode()
            )
            answer = await reader.read()
            return int(answer.split(b" ", 2)[1]), answer
        finally:
            writer.close()

    return await asyncio.wait_for(call(), timeout)


class Client:
    """A WebSocket client of a few lines: text messages without fragments, pongs for pings."""

    @classmethod
    async def connect(cls, port, headers="", timeout=10.0):
        self = cls()
        self.reader, self.writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), timeout)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET /prod HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n{headers}\r\n".encode()
        )
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), timeout)
        self.status = int(head.split(b" ", 2)[1])
        return self

    def send(self, opcode, data):
        mask = os.urandom(4)
        length = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0xFE]) + struct.pack(">H", len(data))
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self.writer.write(bytes([0x80 | opcode]) + length + mask + masked)

    async def echo(self, text):
        self.send(1, text.encode())
        while True:
            opcode, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack(">H", await self.reader.readexactly(2))
            data = await self.reader.readexactly(length)
            if opcode & 15 == 9:
                self.send(10, data)
            elif opcode & 15 == 1:
                return data.decode()
            elif opcode & 15 == 8:
                raise ConnectionError(f"closed by the gateway: {data!r}")

    def close(self):
        self.writer.close()


class Watch:
    """What everybody else notices: the chat of an open client and the answers of `/healthz`."""

    def __init__(self, gateway):
        self.gateway, self.problems = gateway, []
        self.chat, self.health, self.memory = [], [], 0

    async def begin(self):
        self.client = await Client.connect(self.gateway.public)
        if self.client.status != 101:
            raise SystemExit(f"the first client was refused with {self.client.status}")
        self.tasks = [asyncio.create_task(self.talk()), asyncio.create_task(self.probe())]

    async def talk(self):
        number = 0
        while True:
            number += 1
            text, begun = json.dumps({"action": "echo", "number": number}), time.monotonic()
            try:
                answer = await asyncio.wait_for(self.client.echo(text), CHAT_MAX)
                if answer != text:
                    self.problems.append(f"message {number} was answered {answer[:120]}")
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.problems.append(f"message {number} failed: {error!r}")
                return
            self.chat.append(time.monotonic() - begun)
            await asyncio.sleep(0.25)

    async def probe(self):
        while True:
            begun = time.monotonic()
            try:
                status, _ = await http(self.gateway.internal, "/healthz", timeout=10.0)
                if status != 200:
                    self.problems.append(f"/healthz answered {status}")
            except (OSError, asyncio.TimeoutError, IndexError) as error:
                self.problems.append(f"/healthz failed: {error!r}")
            took = time.monotonic() - begun
            self.health.append(took)
            if took > HEALTH_MAX:
                self.problems.append(f"/healthz took {took:.1f} s")
            self.memory = max(self.memory, self.gateway.memory())
            await asyncio.sleep(0.25)

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def repeat(seconds, workers, action):
    """Runs `action` over and over in `workers` tasks for `seconds`. Returns how often, and the results by count."""
    until, counts = time.monotonic() + seconds, {}

    async def work():
        while time.monotonic() < until:
            try:
                result = await action()
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, IndexError, ValueError) as error:
                result = type(error).__name__
                await asyncio.sleep(0.01)
            counts[result] = counts.get(result, 0) + 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return counts


# The attacks. Each gets the binary, the backend and the time, and returns gateway, watch, a remark and a memory bound.


async def silent_log(binary, backend, seconds):
    """stderr is a pipe that nobody reads, and strangers make calls that are refused"""
    read, write = os.pipe()
    gateway = Gateway(binary, backend, stderr=write)
    os.close(write)
    await gateway.ready()
    watch = Watch(gateway)
    await watch.begin()
    paths = ["/prod/@connections/AbCdEfGhIjKlMnO=", "/nope", "/prod/@broadcast", "/prod"]

    async def call():
        path = paths[os.urandom(1)[0] % len(paths)]
        status, _ = await http(gateway.public, path, method="POST", headers="content-length: 0\r\n")
        return status

    counts = await repeat(seconds, 20, call)
    gateway.unread = read
    return gateway, watch, counts, 200 * MIB


async def hanging_disconnects(binary, backend, seconds):
    """clients connect and leave while the backend never answers $disconnect"""
    backend.hang_disconnects = True
    gateway = Gateway(binary, backend, extra="limits: { connections: 100 }")
    await gateway.ready()
    watch = Watch(gateway)
    await watch.begin()
    agent = "user-agent: " + "x" * 20_000 + "\r\n"

    async def come_and_go():
        client = await Client.connect(gateway.public, headers=agent)
        client.close()
        return client.status

    counts = await repeat(seconds, 20, come_and_go)
    backend.hang_disconnects = False
    return gateway, watch, counts, 150 * MIB


async def files_used_up(binary, backend, seconds):
    """200 open files, and 240 strangers who ask for nothing that exists and stay"""
    gateway = Gateway(binary, backend, files=200)
    await gateway.ready()
    watch = Watch(gateway)
    await watch.begin()

    async def stay():
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", gateway.public), 10)
        writer.write(b"GET /nope HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        try:
            await asyncio.wait_for(reader.read(), 80)
        finally:
            writer.close()
        return "closed by the gateway"

    counts = await repeat(seconds, 240, stay)
    return gateway, watch, counts, 150 * MIB


async def unverified_bodies(binary, backend, seconds):
    """150 strangers with an unknown key send all but one byte of 1 MiB, and stay"""
    gateway = Gateway(binary, backend)
    await gateway.ready()
    watch = Watch(gateway)
    await watch.begin()
    body = b"x" * (MIB - 1)

    async def almost():
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/us-east-1/execute-api/aws4_request"
        signature = hmac.new(b"guess", now.encode(), hashlib.sha256).hexdigest()
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", gateway.public), 10)
        try:
            writer.write(
                f"POST /prod/@send HTTP/1.1\r\nhost: 127.0.0.1:{gateway.public}\r\nx-amz-date: {now}\r\n"
                f"authorization: AWS4-HMAC-SHA256 Credential=AKIDUNKNOWN/{scope}, SignedHeaders=host;x-amz-date, "
                f"Signature={signature}\r\ncontent-type: application/json\r\ncontent-length: {MIB}\r\n\r\n".encode()
            )
            writer.write(body)
            answer = await asyncio.wait_for(reader.read(), 40)
            return int(answer.split(b" ", 2)[1]) if answer else "closed"
        finally:
            writer.close()

    counts = await repeat(seconds, 150, almost)
    return gateway, watch, counts, 120 * MIB


async def answers_unread(binary, backend, seconds):
    """100 strangers send requests without end and read no answer"""
    gateway = Gateway(binary, backend)
    await gateway.ready()
    watch = Watch(gateway)
    await watch.begin()
    request = b"GET /nope HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 50

    async def pour():
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", gateway.public, limit=1024), 10)
        writer.transport.pause_reading()
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 60:
                writer.write(request)
                await asyncio.wait_for(writer.drain(), 60)
            return "held for a minute"
        except (ConnectionError, asyncio.TimeoutError):
            return "closed by the gateway"
        finally:
            writer.transport.abort()

    counts = await repeat(seconds, 100, pour)
    return gateway, watch, counts, 200 * MIB


async def silent_peers(binary, backend, seconds):
    """450 silent strangers a second at the cluster's port, and a second node that wants in"""
    redis_port = free_port()
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    try:
        ports = [free_port(), free_port()]

        def extra(port):
            return (
                f'registry: {{ type: redis, url: "redis://127.0.0.1:{redis_port}/0" }}\n'
                f'cluster: {{ address: "127.0.0.1:{port}", secret: a-secret-of-this-siege-alone }}'
            )

        await asyncio.sleep(0.5)
        gateway = Gateway(binary, backend, extra=extra(ports[0]))
        await gateway.ready()
        watch = Watch(gateway)
        await watch.begin()

        async def say_nothing():
            begun = time.monotonic()
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", ports[0]), 10)
            try:
                await asyncio.wait_for(reader.read(), 20)
            finally:
                writer.close()
            # 900 strangers, each at most once in two seconds: they are cut off at once when there are too many.
            await asyncio.sleep(max(0, begun + 2 - time.monotonic()))
            return "cut off"

        flood = asyncio.create_task(repeat(seconds, 900, say_nothing))
        await asyncio.sleep(min(10, seconds / 4))
        second = Gateway(binary, backend, extra=extra(ports[1]))
        await second.ready()
        client = await Client.connect(second.public)
        name = await asyncio.wait_for(client.echo("whoami"), CHAT_MAX)
        push, status, until = f"/prod/@connections/{name}", None, time.monotonic() + seconds / 2
        while status != 200 and time.monotonic() < until:
            status, _ = await http(gateway.internal, push, method="POST", headers="content-length: 2\r\n", body="hi")
            await asyncio.sleep(0.25)
        if status != 200:
            watch.problems.append(f"no link to the second node during the flood: a push to its client is {status}")
        counts = await flood
        client.close()
        await second.stop()
        return gateway, watch, counts, 150 * MIB
    finally:
        backend.cleanup = redis


ATTACKS = [silent_log, hanging_disconnects, files_used_up, unverified_bodies, answers_unread, silent_peers]


async def siege(attack, binary, seconds):
    backend = Backend()
    await backend.start()
    print(f"{attack.__name__}: {attack.__doc__}", flush=True)
    gateway, watch, counts, memory_max = await attack(binary, backend, seconds)
    await watch.end()
    status, took = await gateway.stop()
    if backend.cleanup:
        backend.cleanup.terminate()
        backend.cleanup.wait()
    problems = watch.problems
    if watch.memory > memory_max:
        problems.append(f"{watch.memory // MIB} MiB of memory, more than {memory_max // MIB}")
    if status != 0 or took > GRACE:
        problems.append(f"SIGTERM: status {status} after {took:.1f} s")
    print(f"  attackers saw: {counts}")
    print(
        f"  chat: {len(watch.chat)} messages, slowest {max(watch.chat, default=0):.2f} s; /healthz: {len(watch.health)}, "
        f"slowest {max(watch.health, default=0):.2f} s; memory at most {watch.memory // MIB} MiB; "
        f"SIGTERM: status {status} after {took:.1f} s"
    )
    for problem in problems[:10]:
        print(f"  PROBLEM: {problem}")
    print(f"  {'NOT withstood' if problems else 'withstood'}", flush=True)
    backend.server.close()
    return not problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--binary", default="target/release/tidegate")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK")
    options = parser.parse_args()
    names = {attack.__name__: attack for attack in ATTACKS}
    unknown = [name for name in options.attacks if name not in names]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(names)}")
    chosen = [names[name] for name in options.attacks] or ATTACKS
    withstood = [asyncio.run(siege(attack, options.binary, options.seconds)) for attack in chosen]
    print(f"{sum(withstood)} of {len(withstood)} attacks withstood")
    sys.exit(0 if all(withstood) else 1)


if __name__ == "__main__":
    main()
