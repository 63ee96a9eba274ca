"""What boto3 sees of a gateway that checks signatures. Prints each check; exits 1 at the first that fails.

Arguments: HOST:PORT of the public listener; others are not used. The keys are those of access.yaml beside this file.
"""

import asyncio
import json
import sys

import boto3
import websockets
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

PUBLIC = sys.argv[1]
LIMIT_SECONDS = 30
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MISMATCH = "The request signature we calculated does not match"


def client_of(key, secret=SECRET, token=None, stage="prod", **config):
    return boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=f"http://{PUBLIC}/{stage}",
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"max_attempts": 1}, **config),
    )


def fails(client, connection_id, code, message):
    try:
        client.post_to_connection(ConnectionId=connection_id, Data=b"hi")
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, found
        assert found.get("Message", "").startswith(message), found
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403, error.response
        print(f"ok: {code}", flush=True)
        return
    raise AssertionError(f"no {code}")


async def main():
    async with websockets.connect(f"ws://{PUBLIC}/prod") as socket:
        await socket.send("who am I?")
        connection_id = json.loads(await asyncio.wait_for(socket.recv(), LIMIT_SECONDS))["connectionId"]
        for number, client in enumerate([client_of("AKIDALL"), client_of("AKIDPROD"), client_of("AKIDTEMP", token="t")]):
            await asyncio.to_thread(client.post_to_connection, ConnectionId=connection_id, Data=str(number).encode())
            assert await asyncio.wait_for(socket.recv(), LIMIT_SECONDS) == str(number)
            print("ok: posted", flush=True)
        invalid = "The security token included in the request is invalid"
        denied = "User: arn:aws:iam::000000000000:user/dev is not authorized to perform: execute-api:ManageConnections"
        for client, code, message in [
            (client_of("AKIDALL", secret="another"), "InvalidSignatureException", MISMATCH),
            (client_of("AKIDNOBODY"), "UnrecognizedClientException", invalid),
            (client_of("AKIDTEMP"), "UnrecognizedClientException", invalid),
            (client_of("AKIDTEMP", token="another"), "UnrecognizedClientException", invalid),
            (client_of("AKIDEXPIRED", token="t"), "ExpiredTokenException", "The security token included in the request is"),
            (client_of("AKIDDEV"), "AccessDeniedException", denied),
            (client_of("AKIDPROD", stage="dev"), "AccessDeniedException", "User: arn:aws:iam::000000000000:user/prod"),
            (client_of("AKIDALL", signature_version=UNSIGNED), "MissingAuthenticationTokenException", "Missing Auth"),
        ]:
            await asyncio.to_thread(fails, client, connection_id, code, message)


asyncio.run(main())
