"""The chat as a Lambda function: the same file runs behind Amazon API Gateway and behind tidegate.

It posts with boto3's `apigatewaymanagementapi` client. The endpoint is CONNECTIONS_ENDPOINT if that is set; else what
`requestContext.callbackUrl` says, which tidegate adds to each event; else the one of Amazon API Gateway.

Rooms live in this process, so the example needs one instance that lives on. A real function keeps them in a table.
"""

import functools
import json
import os
import unicodedata

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

NAME_MAX_CHARS = 40
TEXT_MAX_CHARS = 2000
ROOMS_MAX = 100
MEMBERS_MAX = 100
HINT = 'Try {"action":"join","room":"lobby","name":"Ada"} and then {"action":"sendMessage","text":"hello"}.'

# Each room's members by connection id, in the order in which they joined: what the others see, and where to post.
rooms: dict[str, dict[str, dict]] = {}


class Refused(Exception):
    """What is wrong with a request, as a sentence for the client."""


def handler(event, context):
    request = event["requestContext"]
    connection_id, endpoint = request["connectionId"], endpoint_of(request)
    if request["eventType"] == "DISCONNECT":
        leave(connection_id, request.get("disconnectStatusCode"), request.get("disconnectReason", ""))
    elif request["eventType"] == "MESSAGE":
        try:
            message(request, endpoint, event.get("body") or "")
        except Refused as refused:
            post(endpoint, connection_id, {"type": "error", "message": str(refused)})
    return {"statusCode": 200}


def message(request, endpoint, body):
    connection_id = request["connectionId"]
    if request["routeKey"] == "join":
        value = read_object(body)
        callback_url = request.get("callbackUrl") or f"{endpoint}/@connections/{connection_id}"
        join(connection_id, endpoint, callback_url, label(value, "room"), label(value, "name"))
    elif request["routeKey"] == "sendMessage":
        text = read_object(body).get("text")
        if not isinstance(text, str) or not text.strip() or len(text) > TEXT_MAX_CHARS:
            raise Refused(f"`text` must have 1 to {TEXT_MAX_CHARS} characters")
        room = room_of(connection_id)
        if room is None:
            raise Refused("join a room first")
        frame = {"type": "message", "room": room, "from": connection_id, "name": rooms[room][connection_id]["name"]}
        send(room, frame | {"text": text, "at": request["requestTimeEpoch"]})
    else:
        post(endpoint, connection_id, {"type": "hint", "message": HINT})


def join(connection_id, endpoint, callback_url, room, name):
    previous = room_of(connection_id)
    if room != previous:
        if len(rooms.get(room, {})) >= MEMBERS_MAX:
            raise Refused("this room is full")
        if room not in rooms and len(rooms) >= ROOMS_MAX:
            raise Refused("there are too many rooms already: join one of them")
    leave(connection_id, None, "joins again" if room == previous else "went to another room")
    rooms.setdefault(room, {})[connection_id] = {"name": name, "endpoint": endpoint}
    person = {"connectionId": connection_id, "name": name}
    send(room, {"type": "joined", "room": room} | person, but=connection_id)
    welcome = {"type": "welcome", "room": room, "callbackUrl": callback_url, "members": people(room)} | person
    if post(endpoint, connection_id, welcome):
        send(room, {"type": "members", "room": room, "members": people(room)}, but=connection_id)
    else:
        leave(connection_id, None, "connection is gone")


def leave(connection_id, code, reason):
    room = room_of(connection_id)
    if room is None:
        return
    name = rooms[room].pop(connection_id)["name"]
    if not rooms[room]:
        del rooms[room]
        return
    left = {"type": "left", "room": room, "connectionId": connection_id, "name": name, "reason": reason}
    send(room, left if code is None else left | {"code": code})
    send(room, {"type": "members", "room": room, "members": people(room)})


def room_of(connection_id):
    return next((room for room, members in rooms.items() if connection_id in members), None)


def people(room):
    return [{"connectionId": id, "name": member["name"]} for id, member in rooms.get(room, {}).items()]


def send(room, frame, but=None):
    """Posts to everybody in a room; whoever is gone leaves it."""
    members = [(id, member["endpoint"]) for id, member in rooms.get(room, {}).items() if id != but]
    for gone in [id for id, endpoint in members if not post(endpoint, id, frame)]:
        leave(gone, None, "connection is gone")


def post(endpoint, connection_id, frame):
    """False if the connection is gone. Another failure is logged, and the frame is lost to that connection."""
    client = client_of(endpoint)
    try:
        client.post_to_connection(ConnectionId=connection_id, Data=json.dumps(frame).encode())
    except client.exceptions.GoneException:
        return False
    except (ClientError, BotoCoreError) as error:
        print(f"could not post to {connection_id}: {error}")
    return True


@functools.lru_cache(maxsize=8)
def client_of(endpoint):
    config = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "max_attempts": 4})
    region = os.environ.get("AWS_REGION", "us-east-1")
    return boto3.client("apigatewaymanagementapi", endpoint_url=endpoint, region_name=region, config=config)


def endpoint_of(request):
    if endpoint := os.environ.get("CONNECTIONS_ENDPOINT"):
        return endpoint.rstrip("/")
    if callback_url := request.get("callbackUrl"):
        return callback_url.rsplit("/@connections/", 1)[0]
    return f"https://{request['domainName']}/{request['stage']}"


def read_object(text):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused("the message is no JSON object")
    return value


def label(value, field):
    text = value.get(field)
    text = text.strip() if isinstance(text, str) else ""
    if not 1 <= len(text) <= NAME_MAX_CHARS or any(unicodedata.category(char) == "Cc" for char in text):
        raise Refused(f"`{field}` must have 1 to {NAME_MAX_CHARS} characters and no control characters")
    return text
