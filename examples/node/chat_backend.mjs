#!/usr/bin/env node
// A chat backend for tidegate with Node's standard library alone.
//
// The gateway posts each event of a client here (AWS_PROXY); what the chat has to say goes to the `callbackUrl` of
// each connection. Run it with: node chat_backend.mjs [--port 9000]

import http from "node:http";
import https from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const NAME_MAX_CHARS = 40;
const TEXT_MAX_CHARS = 2000;
const ROOMS_MAX = 100;
const MEMBERS_MAX = 100;
const CONNECTIONS_MAX = 2000;
const OUTBOX_MAX = 256; // frames that wait for one connection
const BODY_MAX_BYTES = 1024 * 1024;
const POST_TIMEOUT_MS = 15_000;
const ATTEMPTS_MAX = 4;
const HINT = 'Try {"action":"join","room":"lobby","name":"Ada"} and then {"action":"sendMessage","text":"hello"}.';

/** What is wrong with a request, as a sentence for the client. */
class Refused extends Error {}

// ---- Posting ----

// Kept open between posts, but not for long: the gateway closes idle HTTP connections too, and a post should not meet
// a dying one.
const kept = { keepAlive: true, maxSockets: 64, timeout: 2000 };
const agents = { "http:": new http.Agent(kept), "https:": new https.Agent(kept) };

/** Posts to a callback URL; resolves with the status. */
function post(url, data) {
  return new Promise((resolve, reject) => {
    const { request } = url.protocol === "https:" ? https : http;
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(data) };
    const options = { method: "POST", agent: agents[url.protocol], headers, signal: AbortSignal.timeout(POST_TIMEOUT_MS) };
    request(url, options, (response) => {
      response.on("end", () => resolve(response.statusCode)).on("error", reject).resume();
    }).on("error", reject).end(data);
  });
}

/** A client. Its frames are posted one after the other, so that it gets them in order. */
class Connection {
  constructor(id, callbackUrl) {
    Object.assign(this, { id, callbackUrl, url: new URL(callbackUrl), room: null, name: null });
    this.outbox = [];
    this.posting = false;
    this.ended = false;
  }

  get person() {
    return { connectionId: this.id, name: this.name };
  }

  /** False if too many frames wait already. */
  send(frame) {
    if (this.outbox.length >= OUTBOX_MAX) return false;
    this.outbox.push(frame);
    if (!this.posting) this.#postAll();
    return true;
  }

  async #postAll() {
    this.posting = true;
    while (this.outbox.length > 0 && !this.ended) {
      try {
        if (await this.#deliver(this.outbox.shift()) === 410) close(this, undefined, "connection is gone");
      } catch (error) {
        // It may have been written: a repetition could show it twice.
        console.error(`no answer to a post to ${this.id}: ${error.message}`);
      }
    }
    this.posting = false;
  }

  /** Posts one frame; again only if the gateway says that it wrote nothing (429, 503). */
  async #deliver(frame) {
    for (let attempt = 1; ; attempt++) {
      const status = await post(this.url, frame);
      if (![429, 503].includes(status) || attempt === ATTEMPTS_MAX || this.ended) return status;
      await sleep(100 * 2 ** (attempt - 1));
    }
  }
}

// ---- The chat ----
// No function here awaits anything: the order of the changes is the order of the frames in every outbox.

const connections = new Map();
const rooms = new Map(); // each room's connections in the order in which they joined

function send(members, frame) {
  const text = JSON.stringify(frame);
  const slow = [...members].filter((connection) => !connection.send(text));
  for (const connection of slow) leave(connection, undefined, "reads too slowly");
}

function people(room) {
  return [...(rooms.get(room) ?? [])].map((connection) => connection.person);
}

function join(connection, room, name) {
  if (room !== connection.room) {
    if ((rooms.get(room)?.size ?? 0) >= MEMBERS_MAX) throw new Refused("this room is full");
    if (!rooms.has(room) && rooms.size >= ROOMS_MAX) throw new Refused("there are too many rooms already: join one of them");
  }
  leave(connection, undefined, room === connection.room ? "joins again" : "went to another room");
  const others = [...(rooms.get(room) ?? [])];
  Object.assign(connection, { room, name });
  rooms.set(room, new Set([...others, connection]));
  const members = people(room);
  send(others, { type: "joined", room, ...connection.person });
  send([connection], { type: "welcome", ...connection.person, callbackUrl: connection.callbackUrl, room, members });
  send(others, { type: "members", room, members });
}

function leave(connection, code, reason) {
  const { room } = connection;
  if (room === null) return;
  connection.room = null;
  const members = rooms.get(room);
  members.delete(connection);
  if (members.size === 0) rooms.delete(room);
  send(members, { type: "left", room, ...connection.person, code, reason });
  send(members, { type: "members", room, members: people(room) });
}

function close(connection, code, reason) {
  connection.ended = true;
  if (connections.get(connection.id) === connection) connections.delete(connection.id);
  leave(connection, code, reason);
}

function readObject(text) {
  let value;
  try { value = JSON.parse(text); } catch { /* refused below */ }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Refused("the message is no JSON object");
  return value;
}

function label(message, field) {
  const text = typeof message[field] === "string" ? message[field].trim() : "";
  if (text === "" || [...text].length > NAME_MAX_CHARS || /\p{Cc}/u.test(text)) {
    throw new Refused(`\`${field}\` must have 1 to ${NAME_MAX_CHARS} characters and no control characters`);
  }
  return text;
}

const routes = {
  join(connection, context, body) {
    const message = readObject(body);
    join(connection, label(message, "room"), label(message, "name"));
  },
  sendMessage(connection, context, body) {
    const { text } = readObject(body);
    if (typeof text !== "string" || text.trim() === "" || [...text].length > TEXT_MAX_CHARS) {
      throw new Refused(`\`text\` must have 1 to ${TEXT_MAX_CHARS} characters`);
    }
    const { room, id: from, name } = connection;
    if (room === null) throw new Refused("join a room first");
    send(rooms.get(room), { type: "message", room, from, name, text, at: context.requestTimeEpoch });
  },
  $default(connection) {
    send([connection], { type: "hint", message: HINT });
  },
};

/** Carries out one Lambda proxy event; returns the answer. */
function handle(event) {
  const context = event.requestContext;
  const { eventType, connectionId, callbackUrl, routeKey } = context;
  let connection = connections.get(connectionId);
  if (eventType === "DISCONNECT") {
    if (connection) close(connection, context.disconnectStatusCode, context.disconnectReason ?? "");
    return { statusCode: 200 };
  }
  if (!connection) {
    if (connections.size >= CONNECTIONS_MAX) return { statusCode: 503 };
    connection = new Connection(connectionId, callbackUrl);
    connections.set(connectionId, connection);
  }
  if (eventType === "MESSAGE") {
    try {
      (Object.hasOwn(routes, routeKey) ? routes[routeKey] : routes.$default)(connection, context, event.body ?? "");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      send([connection], { type: "error", message: error.message });
    }
  }
  return { statusCode: 200 };
}

// ---- HTTP ----

function answer(response, status, value, headers = {}) {
  const body = JSON.stringify(value);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body), ...headers });
  response.end(body);
}

async function respond(request, response) {
  if (request.method !== "POST") return answer(response, 200, { message: "the chat backend is up" });
  // A web page can make a browser post plain text here, but not JSON.
  if (!/^application\/json\b/i.test(request.headers["content-type"] ?? "")) {
    return answer(response, 415, { message: "events are application/json" }, { connection: "close" });
  }
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > BODY_MAX_BYTES) return answer(response, 413, { message: "the event is larger than 1 MiB" }, { connection: "close" });
    chunks.push(chunk);
  }
  let event;
  try {
    event = JSON.parse(Buffer.concat(chunks).toString());
    if (!event.requestContext.connectionId || !event.requestContext.callbackUrl) throw new TypeError("an id is missing");
  } catch (error) {
    return answer(response, 400, { message: `not a Lambda proxy event: ${error.message}` });
  }
  answer(response, 200, handle(event));
}

const { values } = parseArgs({ options: { port: { type: "string", default: "9000" } } });
const server = http.createServer((request, response) => {
  respond(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) answer(response, 500, { message: "internal error" });
    else response.destroy();
  });
});
// Longer than a caller is likely to keep an idle HTTP connection: it should not be closed under a request.
server.keepAliveTimeout = 300_000;
server.listen(Number(values.port), "127.0.0.1", () => {
  console.log(`chat backend on http://127.0.0.1:${server.address().port}/`);
});
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
