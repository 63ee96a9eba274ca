"""What boto3's `apigatewaymanagementapi` client sees of a gateway. Prints each check; exits 1 at the first that fails.

Arguments: HOST:PORT of the public listener, HOST:PORT of the internal one, URL of backend.py
"""

import asyncio
import datetime
import http.client
import json
import sys
import urllib.parse
import urllib.request

import boto3
import websockets
from botocore.config import Config
from botocore.exceptions import ClientError

PUBLIC, INTERNAL, BACKEND = sys.argv[1:]
LIMIT_SECONDS = 30
UNKNOWN_ID = "AAAAAAAAAAAAAAAAAAA="


def client_of(endpoint):
    return boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"max_attempts": 1}),
    )


gateway = client_of(f"http://{PUBLIC}/prod")


async def call(operation, connection_id, **arguments):
    return await asyncio.to_thread(getattr(gateway, operation), ConnectionId=connection_id, **arguments)


async def backend(path, method="GET"):
    def fetch():
        request = urllib.request.Request(urllib.parse.urljoin(BACKEND, path), method=method)
        request.data = b"" if method == "POST" else None
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as response:
            return json.load(response)

    return await asyncio.to_thread(fetch)


class Client:
    """A WebSocket client that has asked the backend who it is."""

    everybody = []

    @classmethod
    async def open(cls, query="", **arguments):
        self = cls()
        self.socket = await websockets.connect(f"ws://{PUBLIC}/prod{query}", max_size=None, **arguments)
        cls.everybody.append(self)
        await self.socket.send("who am I?")
        self.context = json.loads(await self.next())
        self.id = self.context["connectionId"]
        return self

    async def next(self):
        return await asyncio.wait_for(self.socket.recv(), LIMIT_SECONDS)


def error_of(error):
    return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]


async def fails(kind, operation, connection_id, **arguments):
    """The error of a call that must fail with exactly this exception."""
    try:
        await call(operation, connection_id, **arguments)
    except ClientError as error:
        assert type(error) is kind, f"{type(error)} {error}"
        return error
    raise AssertionError(f"{operation} did not fail")


async def a_post_arrives():
    client = await Client.open()
    for data in [b'{"a":1}', "Grüße".encode(), b""]:
        response = await call("post_to_connection", client.id, Data=data)
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
        assert await client.next() == data.decode()


async def what_is_no_utf_8_becomes_replacement_characters():
    client = await Client.open()
    await call("post_to_connection", client.id, Data=b"\xff\xfe")
    assert await client.next() == "\ufffd\ufffd"


async def the_largest_post_is_131072_bytes():
    client = await Client.open()
    await call("post_to_connection", client.id, Data=b"x" * 131072)
    assert await client.next() == "x" * 131072
    error = await fails(ClientError, "post_to_connection", client.id, Data=b"x" * 131073)
    # As on AWS: neither an error type nor a body.
    assert error_of(error) == ("413", 413), error.response
    assert "x-amzn-errortype" not in error.response["ResponseMetadata"]["HTTPHeaders"]
    await call("post_to_connection", client.id, Data=b"still there")
    assert await client.next() == "still there"


async def get_tells_two_aware_datetimes_and_the_identity():
    client = await Client.open(user_agent_header="check/1")
    info = await call("get_connection", client.id)
    for key in ("ConnectedAt", "LastActiveAt"):
        assert isinstance(info[key], datetime.datetime) and info[key].tzinfo is not None, info
        assert info[key].microsecond % 1000 == 0, info
    assert info["ConnectedAt"] <= info["LastActiveAt"]
    assert info["ConnectedAt"].timestamp() * 1000 == client.context["connectedAt"], info
    assert info["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "check/1"}, info
    nameless = await Client.open(user_agent_header=None)
    assert (await call("get_connection", nameless.id))["Identity"]["UserAgent"] == ""


async def delete_closes_with_1000():
    client = await Client.open()
    response = await call("delete_connection", client.id)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 204
    await asyncio.wait_for(client.socket.wait_closed(), LIMIT_SECONDS)
    assert (client.socket.close_code, client.socket.close_reason) == (1000, "Connection Closed Normally")
    event = await backend("/disconnect?id=" + urllib.parse.quote(client.id, safe=""))
    assert (event["disconnectStatusCode"], event["disconnectReason"]) == (1000, "Connection Closed Normally"), event


async def a_connection_that_has_ended_is_gone():
    client = await Client.open()
    await client.socket.close(4000, "bye")
    event = await backend("/disconnect?id=" + urllib.parse.quote(client.id, safe=""))
    assert (event["disconnectStatusCode"], event["disconnectReason"]) == (4000, "bye"), event
    for id in (client.id, UNKNOWN_ID):
        for operation, arguments in [
            ("post_to_connection", {"Data": b"hi"}),
            ("get_connection", {}),
            ("delete_connection", {}),
        ]:
            error = await fails(gateway.exceptions.GoneException, operation, id, **arguments)
            assert error_of(error) == ("GoneException", 410)


async def a_connection_that_is_still_connecting_is_gone():
    opening = asyncio.create_task(Client.open("?hold=1"))
    id = await backend("/connecting")
    await fails(gateway.exceptions.GoneException, "post_to_connection", id, Data=b"too early")
    await backend("/release", "POST")
    client = await opening
    assert client.id == id
    await call("post_to_connection", id, Data=b"now")
    assert await client.next() == "now"


async def what_is_no_connection_id_is_a_bad_request():
    for id in ("nonsense", "AAAAAAAAAAAAAAAAAAB=", "AAAAAAAAAAAAAAAAAAAA"):
        error = await fails(ClientError, "post_to_connection", id, Data=b"hi")
        assert error_of(error) == ("BadRequestException", 400), error.response
        assert error.response["Error"]["Message"] == f"Invalid connectionId: {id}"


async def another_stage_is_forbidden():
    client = await Client.open()
    other = client_of(f"http://{PUBLIC}/nowhere")
    try:
        await asyncio.to_thread(other.post_to_connection, ConnectionId=client.id, Data=b"hi")
    except other.exceptions.ForbiddenException as error:
        assert error_of(error) == ("ForbiddenException", 403)
    else:
        raise AssertionError("a stage that does not exist took a post")


async def endpoints_may_end_in_a_slash_and_name_the_api():
    client = await Client.open()
    assert client.context["callbackUrl"].startswith(f"http://{PUBLIC}/prod/@connections/"), client.context
    endpoints = [
        f"http://{PUBLIC}/prod/",
        f"http://{PUBLIC}/_aws/execute-api/chat/prod",
        f"http://{INTERNAL}/prod",
        client.context["callbackUrl"].rsplit("/@connections/", 1)[0],
    ]
    for endpoint in endpoints:
        await asyncio.to_thread(client_of(endpoint).post_to_connection, ConnectionId=client.id, Data=endpoint.encode())
        assert await client.next() == endpoint


async def ids_with_every_character_work_in_every_spelling():
    wanted = {"-", "_"}
    for _ in range(200):
        client = await Client.open()
        assert len(client.id) == 20 and client.id.endswith("="), client.id
        if wanted & set(client.id):
            wanted -= set(client.id)
            await call("post_to_connection", client.id, Data=b"by boto3, with %3D")
            assert await client.next() == "by boto3, with %3D"
            quoted = urllib.parse.quote(client.id, safe="")
            for path in [
                f"/prod/@connections/{client.id}",
                f"/prod//@connections/{quoted}",
                f"/prod/%40connections/{quoted}",
                f"/prod/@connections/{client.id[:-1]}%3d",
            ]:
                assert await asyncio.to_thread(raw_post, path) == 200, path
                assert await client.next() == path
        await client.socket.close()
        if not wanted:
            return
    raise AssertionError(f"no id had one of {wanted}")


def raw_post(path):
    connection = http.client.HTTPConnection(PUBLIC, timeout=LIMIT_SECONDS)
    connection.request("POST", path, path.encode())
    status = connection.getresponse().status
    connection.close()
    return status


async def main():
    checks = [
        a_post_arrives,
        what_is_no_utf_8_becomes_replacement_characters,
        the_largest_post_is_131072_bytes,
        get_tells_two_aware_datetimes_and_the_identity,
        delete_closes_with_1000,
        a_connection_that_has_ended_is_gone,
        a_connection_that_is_still_connecting_is_gone,
        what_is_no_connection_id_is_a_bad_request,
        another_stage_is_forbidden,
        endpoints_may_end_in_a_slash_and_name_the_api,
        ids_with_every_character_work_in_every_spelling,
    ]
    for check in checks:
        await check()
        # Left to the end of the program, each would take seconds.
        while Client.everybody:
            await Client.everybody.pop().socket.close()
        print(f"ok: {check.__name__.replace('_', ' ')}", flush=True)


asyncio.run(main())
