// A gateway on Node's ws with the contract of the floor: messages are posted to the backend as they came, its answer is
// the reply; POST /{stage}/@connections/{id} is answered with 200 once the frame is written. One process, as Node is.
//
// node gateway.mjs BACKEND_URL: the address that it listens on is the first line on stdout.

import http from 'node:http';
import { WebSocketServer } from 'ws';

const backend = new URL(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
const connections = new Map();
const members = new Set();
let nextId = 1;

function call(id, routeKey, body) {
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': body.length,
      'x-tidegate-connection-id': id,
      'x-tidegate-event-type': 'MESSAGE',
      'x-tidegate-route-key': routeKey,
    };
    const request = http.request(backend, { agent, method: 'POST', headers }, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('end', () => resolve(Buffer.concat(pieces).toString()));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
sockets.on('connection', (socket) => {
  const id = String(nextId++);
  connections.set(id, socket);
  socket.on('close', () => {
    connections.delete(id);
    members.delete(socket);
  });
  socket.on('error', () => socket.terminate());
  socket.on('message', async (data) => {
    let routeKey = '$default';
    try {
      routeKey = JSON.parse(data).action ?? routeKey;
    } catch {
      // What is not JSON has the default route.
    }
    try {
      socket.send(await call(id, routeKey, data));
    } catch {
      socket.send('{"message":"Internal server error"}');
    }
  });
});

// PUT joins those that the body names, POST sends it to all members and is answered once every frame is written.
function group(request, body, response) {
  if (request.method === 'PUT') {
    for (const id of JSON.parse(body).connections) members.add(connections.get(id));
    return response.end('{}');
  }
  const text = body.toString();
  let left = members.size;
  const written = () => --left || response.end('{}');
  for (const socket of members) socket.send(text, written);
}

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    if (request.url.includes('/@groups/')) return group(request, Buffer.concat(pieces), response);
    const socket = connections.get(request.url.slice(request.url.lastIndexOf('/') + 1));
    const answer = (status) => {
      response.statusCode = status;
      response.end();
    };
    if (!socket) return answer(410);
    socket.send(Buffer.concat(pieces).toString(), (error) => answer(error ? 410 : 200));
  });
});
server.keepAliveTimeout = 75_000;
server.on('upgrade', (request, stream, head) => {
  sockets.handleUpgrade(request, stream, head, (socket) => sockets.emit('connection', socket, request));
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => console.log(`127.0.0.1:${server.address().port}`));
