// What the AWS SDK for JavaScript sees of a gateway. Prints each check; ends with status 1 at the first that fails.
//
// Run with --experimental-websocket (Node 20). Arguments: HOST:PORT of the public listener, URL of backend.py

import assert from "node:assert/strict";
import {
  ApiGatewayManagementApiClient,
  DeleteConnectionCommand,
  ForbiddenException,
  GetConnectionCommand,
  GoneException,
  PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";

const [host, backend] = process.argv.slice(2);
const LIMIT_MILLIS = 30_000;
const UNKNOWN_ID = "AAAAAAAAAAAAAAAAAAA=";

const gatewayAt = (endpoint) => new ApiGatewayManagementApiClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "local", secretAccessKey: "local" },
  maxAttempts: 1,
});
const gateway = gatewayAt(`http://${host}/prod`);
const post = (ConnectionId, Data, through = gateway) => through.send(new PostToConnectionCommand({ ConnectionId, Data }));

/** A WebSocket client that has asked the backend who it is. */
class Client {
  static async open() {
    const client = new Client();
    client.socket = new WebSocket(`ws://${host}/prod`);
    client.frames = [];
    client.waiting = [];
    client.socket.onmessage = ({ data }) => (client.waiting.shift() ?? ((text) => client.frames.push(text)))(data);
    client.closed = new Promise((resolve) => { client.socket.onclose = resolve; });
    await new Promise((resolve, reject) => { client.socket.onopen = resolve; client.socket.onerror = reject; });
    client.socket.send("who am I?");
    client.id = JSON.parse(await client.next()).connectionId;
    return client;
  }

  next() {
    return this.frames.length ? this.frames.shift() : new Promise((resolve) => { this.waiting.push(resolve); });
  }
}

const checks = {
  async "a post arrives"() {
    const client = await Client.open();
    const answer = await post(client.id, "Grüße");
    assert.equal(answer.$metadata.httpStatusCode, 200);
    assert.ok(answer.$metadata.requestId);
    assert.equal(await client.next(), "Grüße");
    await post(client.id, Uint8Array.of(0xff, 0xfe));
    assert.equal(await client.next(), "\ufffd\ufffd");
  },

  async "the largest post is 131072 bytes"() {
    const client = await Client.open();
    await post(client.id, "x".repeat(131072));
    assert.equal(await client.next(), "x".repeat(131072));
    await assert.rejects(post(client.id, "x".repeat(131073)), (error) => error.$metadata.httpStatusCode === 413);
  },

  async "get tells two dates and the identity"() {
    const client = await Client.open();
    const info = await gateway.send(new GetConnectionCommand({ ConnectionId: client.id }));
    assert.ok(info.ConnectedAt instanceof Date && info.LastActiveAt instanceof Date);
    assert.ok(info.ConnectedAt <= info.LastActiveAt);
    assert.equal(info.Identity.SourceIp, "127.0.0.1");
    assert.equal(typeof info.Identity.UserAgent, "string");
  },

  async "delete closes with 1000"() {
    const client = await Client.open();
    const answer = await gateway.send(new DeleteConnectionCommand({ ConnectionId: client.id }));
    assert.equal(answer.$metadata.httpStatusCode, 204);
    const { code, reason } = await client.closed;
    assert.deepEqual([code, reason], [1000, "Connection Closed Normally"]);
    const event = await (await fetch(new URL(`/disconnect?id=${encodeURIComponent(client.id)}`, backend))).json();
    assert.deepEqual([event.disconnectStatusCode, event.disconnectReason], [1000, "Connection Closed Normally"]);
    await assert.rejects(post(client.id, "hi"), GoneException);
  },

  async "a connection that is gone is a GoneException"() {
    for (const call of [
      () => post(UNKNOWN_ID, "hi"),
      () => gateway.send(new GetConnectionCommand({ ConnectionId: UNKNOWN_ID })),
      () => gateway.send(new DeleteConnectionCommand({ ConnectionId: UNKNOWN_ID })),
    ]) {
      const error = await call().then(() => assert.fail("it did not fail"), (error) => error);
      assert.ok(error instanceof GoneException);
      assert.equal(error.name, "GoneException");
      assert.equal(error.$metadata.httpStatusCode, 410);
    }
  },

  async "what is no connection id is a bad request"() {
    await assert.rejects(post("nonsense", "hi"), { name: "BadRequestException", message: "Invalid connectionId: nonsense" });
  },

  async "another stage is forbidden"() {
    const client = await Client.open();
    await assert.rejects(post(client.id, "hi", gatewayAt(`http://${host}/nowhere`)), (error) => {
      assert.equal(error.name, "ForbiddenException");
      return error instanceof ForbiddenException;
    });
  },

  async "endpoints may end in a slash"() {
    const client = await Client.open();
    await post(client.id, "hi", gatewayAt(`http://${host}/prod/`));
    assert.equal(await client.next(), "hi");
  },
};

const limit = setTimeout(() => { console.error("a check takes too long"); process.exit(1); }, LIMIT_MILLIS);
for (const [name, check] of Object.entries(checks)) {
  await check();
  limit.refresh();
  console.log(`ok: ${name}`);
}
process.exit(0);
