// The applications' work in Node: node server.js HTTP PORT WORKERS [KEY CERTIFICATE]. HTTP is the version, 1.1 or 2;
// PORT may be a Unix socket's path.
// The bodies are those of plain.py, star.py, fast.py and techempower.py.
'use strict';
const http = require('http');
const http2 = require('http2');
const https = require('https');
const fs = require('fs');
const cluster = require('cluster');

const [version, port, workers, key, certificate] = process.argv.slice(2);
const BIG = Buffer.alloc(1 << 20, 'x');
const PIECE = Buffer.alloc(1024, 'y');
const ADDITION = { id: 0, message: 'Additional fortune added at request time.' };
const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' };

let pool;
if (process.env.BENCH_DATABASE) {
  const { Pool } = require('pg');
  const max = Number(process.env.BENCH_POOL);
  pool = new Pool({ host: process.env.BENCH_DATABASE, user: 'bench', database: 'bench', max });
  pool.on('error', (error) => { console.error(error.message); process.exit(1); });
}

function answer(response, type, body) {
  response.writeHead(200, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

const answerText = (response, body) => answer(response, 'text/plain', body);
const answerJSON = (response, value) => answer(response, 'application/json', JSON.stringify(value));
const escape = (text) => text.replace(/[&<>"']/g, (character) => ENTITIES[character]);

// The statement has a name: the driver prepares it once on each connection.
async function randomRow() {
  const id = 1 + Math.floor(Math.random() * 10000);
  const result = await pool.query({ name: 'row', text: 'SELECT id, randomnumber FROM world WHERE id = $1', values: [id] });
  return { id: result.rows[0].id, randomNumber: result.rows[0].randomnumber };
}

async function fortunes(response) {
  const { rows } = await pool.query({ name: 'fortunes', text: 'SELECT id, message FROM fortune' });
  rows.push(ADDITION);
  rows.sort((a, b) => (a.message < b.message ? -1 : 1));
  const lines = rows.map((row) => `<tr><td>${row.id}</td><td>${escape(row.message)}</td></tr>`).join('');
  answer(response, 'text/html; charset=utf-8',
    '<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>' +
    `<tr><th>id</th><th>message</th></tr>${lines}</table></body></html>`);
}

// A turn of the loop after each piece: none waits for the next.
async function stream(response) {
  response.writeHead(200, { 'content-type': 'text/plain' });
  for (let i = 0; i < 64; i++) {
    response.write(PIECE);
    await new Promise(setImmediate);
  }
  response.end();
}

// Keeps the loop so long, as a framework and an application do.
function work(milliseconds) {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

function serve(request, response) {
  const [path, query] = request.url.split('?');
  switch (path) {
    case '/echo': {
      const pieces = [];
      request.on('data', (piece) => pieces.push(piece));
      request.on('end', () => answerText(response, Buffer.concat(pieces)));
      return;
    }
    case '/count': {
      let length = 0;
      request.on('data', (piece) => { length += piece.length; });
      request.on('end', () => answerText(response, String(length)));
      return;
    }
    case '/big': return answerText(response, BIG);
    case '/busy': work(0.13); return answerText(response, 'Hello, World!');
    case '/slow': work(5); return answerText(response, 'Hello, World!');
    case '/wait':
      work(0.5);
      return setTimeout(() => { work(0.5); answerText(response, 'Hello, World!'); }, 50);
    case '/stream': return stream(response);
    case '/json': return answerJSON(response, { message: 'Hello, World!' });
    case '/db': return randomRow().then((row) => answerJSON(response, row));
    case '/fortunes': return fortunes(response);
    default:
      if (path.startsWith('/items/')) {
        return answerJSON(response, { id: Number(path.slice(7)), name: new URLSearchParams(query).get('q') });
      }
      return answerText(response, 'Hello, World!');
  }
}

if (Number(workers) > 1 && cluster.isPrimary) {
  for (let i = 0; i < Number(workers); i++) cluster.fork();
  cluster.on('exit', () => process.exit(1));
  process.on('SIGTERM', () => process.exit(0));
} else {
  const tls = key && { key: fs.readFileSync(key), cert: fs.readFileSync(certificate) };
  const server = version === '2'
    ? (tls ? http2.createSecureServer(tls, serve) : http2.createServer(serve))
    : (tls ? https.createServer(tls, serve) : http.createServer(serve));
  server.keepAliveTimeout = 75000;
  if (port.startsWith('/')) server.listen(port, 2048);
  else server.listen(Number(port), '127.0.0.1', 2048);
}
