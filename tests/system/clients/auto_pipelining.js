// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// ioredis with auto-pipelining: auto_pipelining.js PORT ROUNDS
//
// Calls that are made in one turn of the event loop go out as one pipeline. Prints one JSON object: its address, and for each
// command its words and how many bytes the reply took on the wire, worked out from what ioredis made of it.
const Redis = require('ioredis');

const [port, rounds] = process.argv.slice(2).map(Number);
const commands = [['get', 's:100000'], ['ping'], ['get', 'missing'], ['lrange', 'l:400', '0', '-1'], ['get', 's:0'],
  ['incr', 'counter'], ['hkeys', 'h:50'], ['mget', 's:1', 'missing', 's:16384'], ['lrange', 'missing', '0', '-1']];

function wireSize(reply) {
  if (reply === null) return 5;
  if (typeof reply === 'number') return `:${reply}\r\n`.length;
  if (reply === 'PONG') return '+PONG\r\n'.length;
  if (Array.isArray(reply)) return reply.reduce((sum, item) => sum + wireSize(item), `*${reply.length}\r\n`.length);
  const length = Buffer.byteLength(reply);
  return `$${length}\r\n\r\n`.length + length;
}

async function main() {
  // The ready check would send an INFO of its own.
  const redis = new Redis({ port, enableAutoPipelining: true, enableReadyCheck: false, lazyConnect: true });
  await redis.connect();
  const address = `${redis.stream.localAddress}:${redis.stream.localPort}`;
  const sent = [];
  let deepest = 0;
  for (let round = 0; round < rounds; round++) {
    const replies = commands.map((argv) => redis.call(...argv));
    deepest = Math.max(deepest, redis.autoPipelineQueueSize);
    (await Promise.all(replies)).forEach((reply, i) => sent.push([commands[i], wireSize(reply)]));
  }
  redis.disconnect();
  console.log(JSON.stringify({ address, sent, deepest }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
